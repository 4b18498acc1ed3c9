"""Ollama's official release in mscli's own folder: fetched, checked against the published hash, unpacked. No root."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from mscli.engines.engine import Installation
from mscli.errors import Code, MscliError
from mscli.paths import places
from mscli.weights.fault import unwritable
from mscli.weights.progress import COPYING, DONE, DOWNLOADING, VERIFYING, Listener, Meter, Note
from mscli.weights.room import check_room

if TYPE_CHECKING:
    import httpx

VERSION = "0.32.15"
RELEASES = "https://github.com/ollama/ollama/releases/download"
CHECKSUMS = "sha256sum.txt"
MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
ATTEMPTS = 5
CONNECT_S, STALL_S, PAUSE_S = 10.0, 30.0, 1.0
BLOCK_BYTES = 8 << 20
LOOK_S = 0.2


@dataclass(frozen=True)
class Release:
    """One version of Ollama for this machine. `base`: the folder of all releases; `machine`: amd64 or arm64."""

    version: str
    base: str
    machine: str

    @property
    def archive(self) -> str:
        """The archive's name in the release."""
        return f"ollama-linux-{self.machine}.tar.zst"

    def url(self, name: str) -> str:
        """Where a file of the release lies."""
        return f"{self.base}/v{self.version}/{name}"


def install(
    listener: Listener,
    *,
    version: str = VERSION,
    base: str = RELEASES,
    folder: Path | None = None,
    machine: str | None = None,
) -> Installation:
    """Put a release of Ollama into `folder` (default: mscli's own) in place of what is there; returns what runs.

    Goes through the proxy that the environment names (HTTPS_PROXY, NO_PROXY), and on from what an earlier call has
    fetched. Raises MscliError with ENGINE_UNSUPPORTED for a machine that no release is made for, DOWNLOAD_FAILED
    (details["cause"]: network_proxy, model_not_found, corrupt_download, stalled_download), DISK_FULL or FILE, and
    ENGINE_MISSING where zstd is missing, which unpacks it.
    """
    release = Release(version, base.rstrip("/"), _machine(machine or platform.machine()))
    place = folder or places().engines / "ollama"
    _require_zstd()
    partial = place.with_name(f"{place.name}-{version}-{release.machine}.partial")
    with _client() as client:
        wanted = _published_hash(client, release)
        _download(client, release, partial, listener)
    _check(partial, wanted, release, listener)
    _unpack(partial, place, listener)
    partial.unlink()
    program = place / "bin" / "ollama"
    return Installation("ollama", (str(program),), version, "own", program)


def _machine(name: str) -> str:
    if found := MACHINES.get(name.lower()):
        return found
    raise MscliError(
        Code.ENGINE_UNSUPPORTED, f"Ollama publishes no Linux release for {name}", "It publishes amd64 and arm64."
    )


def _require_zstd() -> None:
    if shutil.which("zstd") is None:
        raise MscliError(
            Code.ENGINE_MISSING,
            "Ollama's archive is packed with zstd, and no zstd is on PATH to unpack it",
            "Install it (Debian, Ubuntu: apt install zstd; conda: conda install zstd), then run this again.",
        )


def _client() -> httpx.Client:
    import httpx

    return httpx.Client(timeout=httpx.Timeout(STALL_S, connect=CONNECT_S), follow_redirects=True)


def _published_hash(client: httpx.Client, release: Release) -> str:
    """The sha256 that the release states for its archive."""
    import httpx

    url = release.url(CHECKSUMS)
    try:
        answer = client.get(url)
    except httpx.RequestError as fault:
        raise _unreached(url, fault) from fault
    if answer.status_code != 200:
        raise _refused(url, answer.status_code)
    rows = (line.split() for line in answer.text.splitlines())
    hashes = {row[1].removeprefix("./").lstrip("*"): row[0] for row in rows if len(row) == 2}
    found = hashes.get(release.archive, "")
    if not re.fullmatch(r"[0-9a-f]{64}", found):
        raise MscliError(
            Code.DOWNLOAD_FAILED,
            f"{url} states no sha256 of {release.archive}",
            "Is it the release's own file, or a proxy's page?",
            {"cause": "model_not_found"},
        )
    return found


def _download(client: httpx.Client, release: Release, partial: Path, listener: Listener) -> None:
    """Append to `partial` until it is whole, with a new request after every break."""
    import httpx

    url, failures = release.url(release.archive), 0
    while True:
        before = _size(partial)
        try:
            _append(client, url, partial, listener)
            return
        except httpx.RequestError as fault:
            failures = 0 if _size(partial) > before else failures + 1
            if failures == ATTEMPTS or not _size(partial):
                raise _unreached(url, fault) from fault
            listener.note(Note("retrying", f"the connection broke ({_words(fault)}); going on"))
            time.sleep(PAUSE_S)


def _append(client: httpx.Client, url: str, partial: Path, listener: Listener) -> None:
    """One request for what is missing. Returns when the file is whole; raises httpx.RequestError when it breaks."""
    have = _size(partial)
    headers = {"Range": f"bytes={have}-", "Accept-Encoding": "identity"} if have else {"Accept-Encoding": "identity"}
    with client.stream("GET", url, headers=headers) as answer:
        if answer.status_code == 416:
            return  # nothing is missing
        if answer.status_code not in (200, 206):
            raise _refused(url, answer.status_code)
        start = have if answer.status_code == 206 else 0
        total = start + int(answer.headers.get("Content-Length") or 0)
        if start:
            listener.note(Note("resumed", f"going on after {start:,} bytes that are here already"))
        _check_room(partial.parent, total - start, url.rpartition("/")[2])
        _write(answer, partial, start, Meter(DOWNLOADING, total), listener)


def _write(answer: httpx.Response, partial: Path, start: int, meter: Meter, listener: Listener) -> None:
    done, looked = start, 0.0
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("ab") as file:
            file.truncate(start)
            for block in answer.iter_bytes():  # as they come: gathered ones would be lost with the connection
                file.write(block)
                done += len(block)
                if time.monotonic() - looked >= LOOK_S:
                    looked = time.monotonic()
                    listener.progress(meter.look(done, partial.name))
    except OSError as fault:
        raise _with_own_hint(unwritable(partial, fault, meter.total_bytes - done)) from fault


def _check(partial: Path, wanted: str, release: Release, listener: Listener) -> None:
    """Compare the hash; a file that has another one is removed."""
    total, done, digest = _size(partial), 0, hashlib.sha256()
    meter = Meter(VERIFYING, total)
    with partial.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            done += len(block)
            listener.progress(meter.look(done, release.archive))
    if digest.hexdigest() != wanted:
        partial.unlink()
        raise MscliError(
            Code.DOWNLOAD_FAILED,
            f"{release.archive} has another sha256 than the release states ({digest.hexdigest()[:16]}..., not "
            f"{wanted[:16]}...): it was changed on the way and is removed",
            "Try again, without a proxy in between if there is one.",
            {"cause": "corrupt_download"},
        )


def _unpack(partial: Path, place: Path, listener: Listener) -> None:
    """Unpack beside `place` and swap: what was there works until the new one is whole."""
    listener.progress(Meter(COPYING, _size(partial)).look(0, partial.name))
    fresh = place.with_name(f"{place.name}.fresh-{os.getpid()}")
    try:
        with _decompressed(partial) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            # Not every Python 3.10 has filters yet; the archive's hash has been checked.
            archive.extraction_filter = getattr(tarfile, "data_filter", None)
            archive.extractall(fresh)
        if not (fresh / "bin" / "ollama").is_file():
            raise MscliError(Code.DOWNLOAD_FAILED, f"{partial.name} holds no bin/ollama", "", {"cause": "unknown"})
        _swap(fresh, place)
    except OSError as fault:
        raise _with_own_hint(unwritable(place, fault, _size(partial))) from fault
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    listener.progress(Meter(DONE, _size(partial)).look(_size(partial)))


def _swap(fresh: Path, place: Path) -> None:
    old = place.with_name(f"{place.name}.old-{os.getpid()}")
    if place.exists():
        place.rename(old)
    fresh.rename(place)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _decompressed(path: Path) -> Iterator[IO[bytes]]:
    """The archive's tar stream, through the zstd program. Raises DOWNLOAD_FAILED when zstd cannot read it."""
    with subprocess.Popen(
        ["zstd", "--decompress", "--stdout", "--quiet", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            yield process.stdout
        except tarfile.TarError as fault:
            process.kill()
            said = process.stderr.read().decode(errors="replace").strip() or str(fault)
            message = f"{path.name} cannot be unpacked: {said}"
            raise MscliError(Code.DOWNLOAD_FAILED, message, "Run this again.", {"cause": "corrupt_download"}) from fault


def _check_room(folder: Path, needed_bytes: int, what: str) -> None:
    try:
        check_room(folder, needed_bytes, what)
    except MscliError as full:
        raise _with_own_hint(full) from full


def _with_own_hint(fault: MscliError) -> MscliError:
    """A fault of the disk, with the setting that moves mscli's own folder."""
    hint = "Make room, or set MSCLI_HOME to a folder on a larger disk that you may write."
    return MscliError(fault.code, fault.message, hint, fault.details)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _words(fault: Exception) -> str:
    return str(fault) or type(fault).__name__


def _unreached(url: str, fault: Exception) -> MscliError:
    import httpx

    cause = "stalled_download" if isinstance(fault, httpx.ReadTimeout) else "network_proxy"
    return MscliError(
        Code.DOWNLOAD_FAILED,
        f"{url} cannot be reached ({_words(fault)})",
        "Offline? Then install Ollama from another machine's download (https://ollama.com/download), or use a profile "
        "on llama.cpp. Behind a proxy: set HTTPS_PROXY. What has been fetched is kept for the next call.",
        {"cause": cause, "url": url},
    )


def _refused(url: str, status: int) -> MscliError:
    cause = "model_not_found" if status == 404 else "network_proxy"
    hint = "Is there such a release? https://github.com/ollama/ollama/releases" if status == 404 else "Try again later."
    return MscliError(Code.DOWNLOAD_FAILED, f"{url} answers HTTP {status}", hint, {"cause": cause, "url": url})
