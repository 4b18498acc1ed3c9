"""Faults of a pull: those that may pass and are tried again, and those that end it, worded for the user; and the room
that a download needs on the file systems that will really receive it."""

from __future__ import annotations

import errno
import os
import re
import shlex
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from mscli.errors import Code, MscliError
from mscli.frozen import frozen
from mscli.inventory.host import Disk, existing, free_bytes, roomiest
from mscli.paths import expanded

PUBLIC_HUB = "https://huggingface.co"
PROXY_VARIABLES = ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")


@frozen
class Timeouts:
    """How long a pull waits, in seconds.

    `connect_s`: for a connection, or for an answer's head. `stall_s`: without a byte before a request is made anew.
    `retry_s`: without any byte at all before the pull gives up; also the longest Retry-After that is waited for.
    `slow_s`: over how long the speed is taken that must not fall to a twentieth.
    """

    connect_s: float = 10.0
    stall_s: float = 30.0
    retry_s: float = 300.0
    slow_s: float = 60.0


DEFAULT_TIMEOUTS = Timeouts()


class Headers(Protocol):
    """The headers of an HTTP answer, looked up in any case; each HTTP client has a class of its own for them."""

    def get(self, name: str, default: str, /) -> str:
        """The value of `name`, or `default`."""


class PassingFault(Exception):
    """Something that may go better next time. `cause`: the code if it never does; `wait_s`: what the server asked."""

    def __init__(self, cause: str, seen: str, wait_s: float | None = None) -> None:
        super().__init__(seen)
        self.cause = cause
        self.seen = seen
        self.wait_s = wait_s

    def final(self, repository: str) -> MscliError:
        """The error for the user once trying again has not helped."""
        hint = {
            "hf_rate_limit": "wait, then run the same command again: it resumes; `hf auth login` raises the limit",
            "network_proxy": proxy_hint(),
            "corrupt_download": "a proxy or mirror changes the bytes: try without it",
        }.get(self.cause, "run the same command again: the download resumes")
        details: dict[str, object] = {"cause": self.cause, "repository": repository}
        if self.wait_s is not None:
            details["retry_after_s"] = self.wait_s
        return MscliError(Code.DOWNLOAD_FAILED, f"cannot download {repository}: {self.seen}", hint, details)


class WrongAnswerFault(PassingFault):
    """An answer that time alone does not mend: an expired address, another range than asked for. Worth a few tries."""


def proxy_hint() -> str:
    """What to look at when the network does not let a request through, naming the proxy and endpoint in force."""
    proxies = [f"{name}={without_password(os.environ[name])}" for name in PROXY_VARIABLES if os.environ.get(name)]
    seen = f"a proxy is set ({', '.join(proxies)})" if proxies else "no proxy is set (HTTPS_PROXY)"
    if endpoint := os.environ.get("HF_ENDPOINT"):
        seen += f"; HF_ENDPOINT is {without_password(endpoint)}"
    return f"check the connection: {seen}; then run the same command again: the download resumes"


def without_password(address: str) -> str:
    """The address with its login hidden, if it has one."""
    return re.sub(r"//[^/@]*@", "//***@", address)


def missing(repository: str, what: str) -> MscliError:
    """The hub knows no such repository, commit or file."""
    return MscliError(
        Code.DOWNLOAD_FAILED,
        f"the hub has no {what}",
        "check the profile's repository and revision; `mscli profiles update` looks up the newest commit",
        {"cause": "model_not_found", "repository": repository},
    )


def refused(repository: str, status: int, headers: Headers, seen: str, has_token: bool) -> MscliError:
    """What an answer of 401, 403 or 404 means, by the hub's own error code and message.

    The hub answers 401 for repositories that do not exist when nobody is logged in, so as not to tell which exist.
    """
    code = headers.get("X-Error-Code", "")
    said = headers.get("X-Error-Message", "")
    if code == "GatedRepo" or "gated" in said.lower():
        return _gated(repository, status, said, has_token)
    if "invalid" in said.lower() and has_token and status == 401:
        return _token_refused(repository)
    if code == "RevisionNotFound":
        return missing(repository, f"such commit of {repository} ({seen})")
    if code == "EntryNotFound":
        return missing(repository, f"such file in {repository} ({seen})")
    if status in (401, 404):
        private = "" if has_token else ", or it is private and needs a token (HF_TOKEN or `hf auth login`)"
        return missing(repository, f"repository {repository}{private}")
    message = f"the hub refuses {repository} to this token: {said or f'HTTP {status}'}"
    hint = "give the token read access to this repository: https://huggingface.co/settings/tokens"
    return MscliError(Code.DOWNLOAD_FAILED, message, hint, _gate_details(repository, "lacks_right"))


def _gated(repository: str, status: int, said: str, has_token: bool) -> MscliError:
    page = f"{PUBLIC_HUB}/{repository}"
    message = f"{repository} is gated: its conditions must be accepted before the download"
    if not has_token:
        hint = f"accept the conditions at {page}, then log in with `hf auth login` or set HF_TOKEN"
        return MscliError(
            Code.DOWNLOAD_FAILED, f"{message}; no token is set", hint, _gate_details(repository, "missing")
        )
    if "fine-grained" in said:
        hint = "enable 'public gated repositories' for this token: https://huggingface.co/settings/tokens"
        seen = f"{message}; the token has no access to gated repositories"
        return MscliError(Code.DOWNLOAD_FAILED, seen, hint, _gate_details(repository, "lacks_right"))
    if status == 401:
        return _token_refused(repository)
    hint = f"accept the conditions at {page} with the token's account; some are reviewed by hand"
    seen = f"{message}; the token's account has no access yet"
    return MscliError(Code.DOWNLOAD_FAILED, seen, hint, _gate_details(repository, "not_accepted"))


def _token_refused(repository: str) -> MscliError:
    message = f"the hub does not accept the token for {repository}: mistyped, expired or revoked"
    hint = "create a new one at https://huggingface.co/settings/tokens, then `hf auth login` or set HF_TOKEN"
    return MscliError(Code.DOWNLOAD_FAILED, message, hint, _gate_details(repository, "invalid"))


def _gate_details(repository: str, token: str) -> dict[str, object]:
    page = f"{PUBLIC_HUB}/{repository}"
    return {"cause": "hf_gated", "repository": repository, "page": page, "token": token}


def answer_fault(status: int, headers: Headers, url: str) -> PassingFault | None:
    """The passing fault that an HTTP status stands for (429 and 5xx), or None."""
    from mscli.http import host_in  # 20 ms, for a fault alone

    host = host_in(url)
    wait_s = retry_after_s(headers)
    if status == 429:
        return PassingFault("hf_rate_limit", f"{host} limits the request rate (HTTP 429)", wait_s)
    if status >= 500:
        return PassingFault("network_proxy", f"{host} has a server error (HTTP {status})", wait_s)
    return None


def retry_after_s(headers: Headers) -> float | None:
    """Seconds to wait by the Retry-After header, or by the hub's RateLimit header (`"api";r=0;t=55`)."""
    if re.fullmatch("[0-9]{1,9}", after := headers.get("Retry-After", "")):
        return float(after)
    if found := re.search(r";\s*t=([0-9]{1,9})", headers.get("RateLimit", "")):
        return float(found[1])
    return None


def disk_full(folder: Path, needed_bytes: int, free_bytes: int, what: str, root: Path = Path("/")) -> MscliError:
    """There is not room for `needed_bytes` more in `folder`. Says which other disk has it. `root`: holds /proc."""
    gib = 2**30
    message = f"{what} needs {needed_bytes / gib:.2f} GiB more in {folder}; {free_bytes / gib:.2f} GiB free"
    details = {"cause": "disk_full", "folder": str(folder), "needed_bytes": needed_bytes, "free_bytes": free_bytes}
    hint = "free disk space with `mscli weights prune`, or set HF_HOME to a folder on a larger disk"
    if other := roomiest(needed_bytes, folder, root):
        hint, details["elsewhere"] = _elsewhere(other), str(other.folder)
    return MscliError(Code.DISK_FULL, message, hint, details)


OWN_FOLDER_FULL = "Free disk space, or set MSCLI_HOME to a folder on a larger disk that you may write."
# What moves what mscli keeps (engines, state, Ollama's weights) and the weights that all tools of the hub share.
_HOMES = {"MSCLI_HOME": "mscli", "HF_HOME": "huggingface"}


def _elsewhere(disk: Disk) -> str:
    """How to use another disk for all that mscli and the hub's tools keep."""
    homes = (f"{name}={shlex.quote(str(disk.folder / own))}" for name, own in _HOMES.items())
    return (
        f"{disk.folder} has {disk.free_bytes / 2**30:.0f} GiB free. To keep everything there:\nexport {' '.join(homes)}"
    )


def unwritable(path: Path, error: OSError, needed_bytes: int) -> MscliError:
    """What a failed write below the folder of `path` means; `needed_bytes` were still to be written."""
    folder = existing(path.parent)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full(folder, needed_bytes, free_bytes(folder), path.name)
    hint = "make the folder writable, or set HF_HOME to one that is; the download resumes"
    if error.errno == errno.EFBIG:
        hint = "this file system cannot store a file that large (FAT32: 4 GiB): use ext4, XFS or exFAT"
    return MscliError(Code.FILE, f"cannot write {path}: {error.strerror}", hint, {"folder": str(folder)})


def offline(repository: str, missing_bytes: int | None, folder: Path) -> MscliError:
    """Weights are not (wholly) here and nothing may be fetched."""
    lacking = "weights" if missing_bytes is None else f"{missing_bytes:,} bytes"
    return MscliError(
        Code.WEIGHTS_MISSING,
        f"{lacking} of {repository} not downloaded (looked in {folder})",
        "pull once online, or copy them: `mscli pull --to DIR` on another machine, `mscli up --weights DIR` here",
        {"cause": "offline", "repository": repository, "folder": str(folder)},
    )


def check_room(cache: Path, needed_bytes: int, what: str) -> None:
    """Raises MscliError(DISK_FULL) when `needed_bytes` more do not fit into `cache`.

    Unfinished files lie in the cache itself, so no temporary folder needs room. Xet storage keeps chunks of its own
    only where HF_XET_CHUNK_CACHE_SIZE_BYTES says so, and then in its own folder.
    """
    receivers = [(cache, needed_bytes)]
    kept = os.environ.get("HF_XET_CHUNK_CACHE_SIZE_BYTES", "")
    if kept.isdigit() and needed_bytes:
        receivers.append((_xet_cache(cache), min(int(kept), needed_bytes)))
    check_rooms(receivers, what)


def check_rooms(receivers: Iterable[tuple[Path, int]], what: str) -> None:
    """Raises MscliError(DISK_FULL) when the folders' file systems have not the bytes that they are to receive."""
    for folder, needed, free in _by_file_system(receivers):
        if needed > free:
            raise disk_full(folder, needed, free, what)


def _by_file_system(receivers: Iterable[tuple[Path, int]]) -> list[tuple[Path, int, int]]:
    """Folder, bytes needed and bytes free for each file system among the receivers."""
    needed: dict[int, int] = defaultdict(int)
    folders: dict[int, Path] = {}
    for folder, size in receivers:
        there = existing(folder)
        device = there.stat().st_dev
        needed[device] += size
        folders.setdefault(device, there)
    return [(folder, needed[device], free_bytes(folder)) for device, folder in folders.items()]


def _xet_cache(cache: Path) -> Path:
    return expanded(os.environ.get("HF_XET_CACHE") or cache.parent / "xet").absolute()
