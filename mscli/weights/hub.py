"""The Hugging Face Hub as a pull needs it: what a repository holds at a commit, and where a file's bytes lie.

Asked through mscli's own HTTP, not through huggingface_hub: importing that takes half a second, it reads an answer of
any length for as long as a byte comes, and it has had three HTTP clients in two years. What is asked here (the model
API with blobs, HEAD of a file) has been the same from 0.34 to 2.x.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

from mscli.frozen import field, frozen
from mscli.http import MOVED, Answer, HttpFault, Limits, host_in, request
from mscli.paths import hub_token_file
from mscli.weights.fault import (
    PUBLIC_HUB,
    PassingFault,
    Timeouts,
    WrongAnswerFault,
    answer_fault,
    missing,
    refused,
)
from mscli.weights.listing import COMMIT, RemoteFile

# Owner and name of a repository, or one word for the few old ones without an owner.
_REPOSITORY = re.compile(r"(?!.*(?:\.\.|--))\w[\w.-]{0,95}(?:/\w[\w.-]{0,95})?", re.ASCII)
_XET_LINK = re.compile(r'<([^<>]*)>\s*;\s*rel="?xet-auth"?')
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|//")
_TRUE = {"1", "ON", "YES", "TRUE"}


@frozen
class Xet:
    """A file in Xet storage: its hash there, and the address (with its headers) that hands out connections to it."""

    hash: str
    refresh_url: str
    headers: Mapping[str, str] = field(repr=False)


@frozen
class Location:
    """Where a file's bytes lie right now (signed addresses expire after about an hour), and how to ask for them."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    xet: Xet | None = None


@frozen
class Token:
    """The token that a pull sends. `origin`: the variable or the file that it comes from."""

    value: str = field(repr=False)
    origin: str


@frozen
class Hub:
    """One hub, by default the one in HF_ENDPOINT or the public one. Waits at most `timeouts.connect_s` for an answer to
    begin, and three times that for all of it."""

    endpoint: str
    timeouts: Timeouts

    def files(self, repository: str, revision: str) -> tuple[str, tuple[RemoteFile, ...]]:
        """The commit that `revision` names, and every file at it. Raises PassingFault, or MscliError when refused."""
        if not _REPOSITORY.fullmatch(repository):
            raise missing(repository, f"repository of that name ({repository})")
        url = f"{self.endpoint}/api/models/{repository}/revision/{quote(revision, safe='')}?blobs=true"
        answer = self._ask(repository, revision, url)
        try:
            return _contents(answer.json())
        except (ValueError, KeyError, TypeError) as error:
            raise PassingFault(
                "network_proxy", f"{host_in(url)} does not respond like a Hugging Face hub ({error})"
            ) from error

    def commit(self, repository: str, revision: str = "main") -> str:
        """The newest commit of a branch. Raises as `files` does."""
        return self.files(repository, revision)[0]

    def locate(self, repository: str, revision: str, file: RemoteFile) -> Location:
        """Where the bytes of `file` lie. Raises PassingFault, or MscliError when the hub refuses them."""
        url = f"{self.endpoint}/{repository}/resolve/{quote(revision, safe='')}/{quote(file.name)}"
        seen = f"{file.name} at {revision}"
        answer = self._ask(repository, seen, url, head=True)
        # Renamed repositories lead on by a relative address; an absolute one is where the bytes are.
        for _ in range(5):
            target = answer.headers.get("Location", "")
            if answer.status not in MOVED or _ABSOLUTE.match(target):
                break
            answer = self._ask(repository, seen, urljoin(answer.url, target), head=True)
        return self._location(answer, file, seen)

    def _location(self, answer: Answer, file: RemoteFile, seen: str) -> Location:
        host, headers = host_in(answer.url), answer.headers
        if not headers.get("X-Repo-Commit") or not (headers.get("X-Linked-Etag") or headers.get("ETag")):
            raise WrongAnswerFault("network_proxy", f"{host} does not respond like a Hugging Face hub")
        url = headers.get("Location", "") if answer.status in MOVED else answer.url
        if not url.lower().startswith(("http://", "https://")):
            raise PassingFault("network_proxy", f"{host} redirects {seen} to an address that is not HTTP")
        size = headers.get("X-Linked-Size") or (headers.get("Content-Length") if answer.status == 200 else None)
        if size is not None and size != str(file.size_bytes):
            raise WrongAnswerFault("corrupt_download", f"{seen} has {size} bytes, not {file.size_bytes:,}")
        return Location(url, self._token(url), self._xet(answer))

    def _xet(self, answer: Answer) -> Xet | None:
        found, headers = _XET_LINK.search(answer.headers.get("Link", "")), answer.headers
        refresh_url = found[1] if found else headers.get("X-Xet-Refresh-Route")
        if not headers.get("X-Xet-Hash") or not refresh_url:
            return None
        if self.endpoint != PUBLIC_HUB and refresh_url.startswith(f"{PUBLIC_HUB}/"):  # a mirror that copies headers
            refresh_url = self.endpoint + refresh_url.removeprefix(PUBLIC_HUB)
        return Xet(headers["X-Xet-Hash"], refresh_url, self._token(refresh_url))

    def _token(self, url: str) -> dict[str, str]:
        """The header with the token, which is for the hub alone."""
        sent = token() if url.startswith(f"{self.endpoint}/") else None
        return {"Authorization": f"Bearer {sent.value}"} if sent else {}

    def _ask(self, repository: str, seen: str, url: str, head: bool = False) -> Answer:
        wait_s = self.timeouts.connect_s
        limits = Limits(wait_s, wait_s, 3 * wait_s, redirects=0 if head else 5)
        try:
            answer = request(url, method="HEAD" if head else "GET", headers=self._token(url), limits=limits)
        except HttpFault as fault:
            raise PassingFault("network_proxy", fault.seen) from fault
        if answer.status >= 400:
            passing = answer_fault(answer.status, answer.headers, answer.url)
            raise passing or refused(repository, answer.status, answer.headers, seen, token() is not None)
        return answer


def _contents(info: Any) -> tuple[str, tuple[RemoteFile, ...]]:
    """Commit and files of the model API's answer. Raises ValueError, KeyError or TypeError for any other answer."""
    sha = info["sha"]
    if not COMMIT.fullmatch(sha):
        raise ValueError(f"no commit: {sha[:60]!r}")
    return sha, tuple(_remote(sibling) for sibling in info["siblings"])


def _remote(sibling: Any) -> RemoteFile:
    sha256 = (sibling.get("lfs") or {}).get("sha256")
    name, size, etag = sibling["rfilename"], sibling["size"], sha256 or sibling["blobId"]
    if not isinstance(size, int):
        raise TypeError(f"no size of {name!r}")
    return RemoteFile(name, size, sha256, etag)


def hub(timeouts: Timeouts) -> Hub:
    """The hub in force for this process (HF_ENDPOINT)."""
    return Hub((os.environ.get("HF_ENDPOINT") or PUBLIC_HUB).rstrip("/"), timeouts)


def token(env: Mapping[str, str] | None = None) -> Token | None:
    """The token in force, by the rules of the hub's libraries: HF_TOKEN, its older name, then the file of a login."""
    env = os.environ if env is None else env
    if env.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").upper() in _TRUE:
        return None
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if value := env.get(name, "").strip():
            return Token(value, name)
    path = hub_token_file(env)
    try:
        value = path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
    return Token(value, str(path)) if value else None


def keep_token(value: str) -> Path:
    """Keep a token where `hf auth login` keeps it, for this user's eyes alone; the file. Raises OSError."""
    path = hub_token_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(value)
    fresh.replace(path)
    return path


def offline_by_environment() -> bool:
    """HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE says that nothing may be fetched."""
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in _TRUE
