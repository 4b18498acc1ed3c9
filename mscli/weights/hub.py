"""The Hugging Face Hub as a pull needs it: what a repository holds at a commit, and where a file's bytes lie.

Only this module talks to huggingface_hub, and only through calls that are the same from 0.34 to 2.x. That library has
had three HTTP clients in that time, so transport errors are recognised by the base class that its own HTTP error has,
and refusals by status and headers, not by exception class.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlsplit

from mscli.errors import MscliError
from mscli.weights.fault import (
    PUBLIC_HUB,
    Headers,
    PassingFault,
    Timeouts,
    WrongAnswerFault,
    answer_fault,
    host_in,
    missing,
    refused,
)
from mscli.weights.listing import COMMIT, RemoteFile

T = TypeVar("T")


@dataclass(frozen=True)
class Xet:
    """A file in Xet storage: its hash there, and the address (with its headers) that hands out connections to it."""

    hash: str
    refresh_url: str
    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class Location:
    """Where a file's bytes lie right now (signed addresses expire after about an hour), and how to ask for them."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    xet: Xet | None = None


@dataclass(frozen=True)
class Hub:
    """One hub, by default the one in HF_ENDPOINT or the public one. Blocks at most `timeouts.connect_s` per answer."""

    endpoint: str
    timeouts: Timeouts

    def files(self, repository: str, revision: str) -> tuple[str, tuple[RemoteFile, ...]]:
        """The commit that `revision` names, and every file at it. Raises PassingFault, or MscliError when refused."""
        from huggingface_hub import HfApi

        api = HfApi(endpoint=self.endpoint)
        info = self._ask(
            repository,
            revision,
            lambda: api.model_info(repository, revision=revision, files_metadata=True, timeout=self.timeouts.connect_s),
        )
        if info.sha is None or info.siblings is None:
            raise missing(repository, f"files in {repository} at {revision}")
        if not COMMIT.fullmatch(info.sha):
            raise PassingFault("network_proxy", f"{host_in(self.endpoint)} names no commit: {info.sha[:60]!r}")
        return info.sha, tuple(_remote(sibling) for sibling in info.siblings)

    def commit(self, repository: str, revision: str = "main") -> str:
        """The newest commit of a branch. Raises as `files` does."""
        return self.files(repository, revision)[0]

    def locate(self, repository: str, revision: str, file: RemoteFile) -> Location:
        """Where the bytes of `file` lie. Raises PassingFault, or MscliError when the hub refuses them."""
        from huggingface_hub import get_hf_file_metadata, get_token, hf_hub_url

        url = hf_hub_url(repository, file.name, revision=revision, endpoint=self.endpoint)
        seen = f"{file.name} at {revision}"
        metadata = self._ask(
            repository,
            seen,
            lambda: get_hf_file_metadata(url, timeout=self.timeouts.connect_s, endpoint=self.endpoint),
        )
        if metadata.etag is None or metadata.commit_hash is None:
            raise WrongAnswerFault("network_proxy", f"{host_in(url)} answers, but not as a hub does")
        if urlsplit(metadata.location).scheme not in ("http", "https"):
            raise PassingFault("network_proxy", f"{host_in(url)} sends for {seen} to an address that is not HTTP")
        if metadata.size is not None and metadata.size != file.size_bytes:
            raise WrongAnswerFault("corrupt_download", f"{seen} has {metadata.size:,} bytes, not {file.size_bytes:,}")
        token = get_token()

        def headers(target: str) -> dict[str, str]:
            """The token is for the hub alone."""
            own = urlsplit(target).netloc == urlsplit(self.endpoint).netloc
            return {"Authorization": f"Bearer {token}"} if token and own else {}

        xet = metadata.xet_file_data
        return Location(
            metadata.location,
            headers(metadata.location),
            Xet(xet.file_hash, xet.refresh_route, headers(xet.refresh_route)) if xet is not None else None,
        )

    def _ask(self, repository: str, seen: str, call: Callable[[], T]) -> T:
        from huggingface_hub import get_token
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        # httpx2.HTTPError, httpx.HTTPError or requests.HTTPError, as huggingface_hub's version has it;
        # of requests, every exception is an OSError.
        transport_error: type[BaseException] = HfHubHTTPError.__mro__[1]
        try:
            return call()
        except HFValidationError as error:
            raise missing(repository, f"repository of that name ({error})") from error
        except (OSError, ValueError, transport_error) as error:
            response = getattr(error, "response", None)
            if response is None:
                raise _unreached(self.endpoint, error) from error
            raise _answered(repository, seen, response, get_token() is not None) from error


def client() -> None:
    """Load the hub's own library now: that takes half a second, which is not to count against a deadline."""
    from huggingface_hub import HfApi, get_hf_file_metadata

    del HfApi, get_hf_file_metadata


def hub(timeouts: Timeouts) -> Hub:
    """The hub in force for this process (HF_ENDPOINT)."""
    return Hub((os.environ.get("HF_ENDPOINT") or PUBLIC_HUB).rstrip("/"), timeouts)


def offline_by_environment() -> bool:
    """HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE says that nothing may be fetched."""
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in {"1", "ON", "YES", "TRUE"}


def _remote(sibling: object) -> RemoteFile:
    name, size, lfs = (getattr(sibling, key, None) for key in ("rfilename", "size", "lfs"))
    sha256 = getattr(lfs, "sha256", None)
    etag = sha256 or getattr(sibling, "blob_id", None)
    if not isinstance(name, str) or not isinstance(size, int) or not isinstance(etag, str):
        raise PassingFault("network_proxy", "the hub lists files without size or hash")
    try:
        return RemoteFile(name, size, sha256, etag)
    except ValueError as error:
        raise PassingFault("network_proxy", f"the hub lists a file that mscli refuses: {error}") from error


def _unreached(endpoint: str, error: BaseException) -> PassingFault:
    host = host_in(endpoint) or endpoint
    if isinstance(error, ValueError):  # no JSON where JSON belongs; requests' own such error is an OSError as well
        return PassingFault("network_proxy", f"{host} answers, but not as a hub does ({error})")
    return PassingFault("network_proxy", f"{host} cannot be reached ({type(error).__name__}: {error})")


def _answered(repository: str, seen: str, response: object, has_token: bool) -> PassingFault | MscliError:
    status = int(getattr(response, "status_code", 0))
    headers: Headers = getattr(response, "headers", {})
    url = str(getattr(response, "url", ""))
    return answer_fault(status, headers, url) or refused(repository, status, headers, seen, has_token)
