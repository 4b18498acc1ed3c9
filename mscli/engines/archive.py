"""A release archive of an engine: fetched with resume, checked by its published hash, unpacked, swapped in whole."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from mscli.errors import Code, MscliError
from mscli.frozen import frozen
from mscli.http import HttpFault, Limits, Response, opened, request
from mscli.untrusted import stays_below
from mscli.weights.fault import OWN_FOLDER_FULL, check_room, unwritable
from mscli.weights.progress import COPYING, DONE, DOWNLOADING, VERIFYING, Listener, Meter, Note

ATTEMPTS = 5
CONNECT_S, STALL_S, PAUSE_S = 10.0, 30.0, 1.0
BLOCK_BYTES = 8 << 20
MOST_NAME_BYTES = 1 << 16
LOOK_S = 0.2


@frozen
class Publisher:
    """Who makes the releases, for words to the user. `page`: where they are listed; `offline`: what to do without a
    network, one sentence."""

    page: str
    offline: str


@frozen
class Largest:
    """The most that an archive may be and hold. The largest engine archive, Ollama's with all its CUDA libraries, has
    2 GB and unpacks to 4 GB, 60 files and 4 levels."""

    packed_bytes: int = 8 << 30
    unpacked_bytes: int = 16 << 30
    entries: int = 20_000
    depth: int = 16


LARGEST = Largest()


@frozen
class Archive:
    """One archive (.tar.gz or .tar.zst). `sha256`: what the release states of it, in hex; `program`: what it must hold,
    by its path there, below the one folder of all if the archive has such a one; empty: only files to lie beside it."""

    publisher: Publisher
    url: str
    sha256: str
    program: str
    limits: Largest = LARGEST

    @property
    def name(self) -> str:
        """The archive's own name."""
        return self.url.rpartition("/")[2]


def read(url: str, publisher: Publisher) -> str:
    """A short text of a release, such as its checksums. Raises MscliError(DOWNLOAD_FAILED)."""
    try:
        answer = request(url)
    except HttpFault as fault:
        raise _unreached(url, fault, publisher) from fault
    if answer.status != 200:
        raise _refused(url, answer.status, publisher)
    return answer.body.decode(errors="replace")


def put(
    archive: Archive,
    partial: Path,
    place: Path,
    listener: Listener,
    try_out: Callable[[Path], object] | None = None,
    beside: Sequence[tuple[Archive, Path]] = (),
) -> Path:
    """Put the archive's content into `place`, instead of what is there, and return its program; waits for the download.

    `partial` keeps what has been fetched for the next call; it is removed once all is in place. `beside`: further
    archives, with their partial files, whose files go into the program's folder. `try_out` is given the new program
    before anything is replaced, and may raise. Raises MscliError with DOWNLOAD_FAILED (details["cause"]:
    network_proxy, model_not_found, corrupt_download, stalled_download), DISK_FULL or FILE.
    """
    parts = ((archive, partial), *beside)
    remove_leftovers(place)
    for each, path in parts:
        _download(each, path, listener)
        _check(each, path, listener)
    _unpack(parts, place, listener, try_out)
    for _, path in parts:
        path.unlink()
    return place / archive.program


def remove_leftovers(place: Path) -> None:
    """Remove what an mscli that was killed has left beside `place` of its unpacking, which may be gigabytes."""
    for kind in ("fresh", "old"):
        for left in place.parent.glob(f"{place.name}.{kind}-*"):
            if not Path("/proc", left.name.rpartition("-")[2]).exists():
                shutil.rmtree(left, ignore_errors=True)


def _download(archive: Archive, partial: Path, listener: Listener) -> None:
    """Append to `partial` until it is whole, with a new request after every break."""
    failures = 0
    while True:
        before = _size(partial)
        try:
            _append(archive, partial, listener)
            return
        except HttpFault as fault:
            failures = 0 if _size(partial) > before else failures + 1
            if failures == ATTEMPTS or not _size(partial):
                raise _unreached(archive.url, fault, archive.publisher) from fault
            listener.note(Note("retrying", f"{fault.seen}; resuming"))
            time.sleep(PAUSE_S)


def _append(archive: Archive, partial: Path, listener: Listener) -> None:
    """One request for what is missing. Returns when the file is whole; raises HttpFault when it breaks."""
    have = _size(partial)
    limits = Limits(CONNECT_S, STALL_S, None, archive.limits.packed_bytes)
    with opened(archive.url, headers={"Range": f"bytes={have}-"} if have else {}, limits=limits) as answer:
        if answer.status == 416:
            return  # nothing is missing
        if answer.status not in (200, 206):
            raise _refused(archive.url, answer.status, archive.publisher)
        start = have if answer.status == 206 else 0
        total = start + int(answer.headers.get("Content-Length") or 0)
        if start:
            listener.note(Note("resumed", f"resuming at {start / 2**20:,.2f} MiB"))
        _check_room(partial.parent, total - start, archive.name)
        _write(answer, partial, start, Meter(DOWNLOADING, total), listener)


def _write(answer: Response, partial: Path, start: int, meter: Meter, listener: Listener) -> None:
    done, looked = start, 0.0
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("ab") as file:
            file.truncate(start)
            for block in answer.blocks():
                file.write(block)
                done += len(block)
                if time.monotonic() - looked >= LOOK_S:
                    looked = time.monotonic()
                    listener.progress(meter.look(done, partial.name))
    except OSError as fault:
        raise _with_own_hint(unwritable(partial, fault, meter.total_bytes - done)) from fault


def _check(archive: Archive, partial: Path, listener: Listener) -> None:
    """Compare the hash; a file that has another one is removed."""
    total, done, digest = _size(partial), 0, hashlib.sha256()
    meter = Meter(VERIFYING, total)
    with partial.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            done += len(block)
            listener.progress(meter.look(done, archive.name))
    if digest.hexdigest() != archive.sha256:
        partial.unlink()
        raise MscliError(
            Code.DOWNLOAD_FAILED,
            f"{archive.name} does not match the release's sha256 ({digest.hexdigest()[:16]}..., not "
            f"{archive.sha256[:16]}...): changed in transit; removed",
            "Try again, without a proxy if there is one.",
            {"cause": "corrupt_download"},
        )


def _unpack(
    parts: Sequence[tuple[Archive, Path]],
    place: Path,
    listener: Listener,
    try_out: Callable[[Path], object] | None,
) -> None:
    """Unpack beside `place` and swap: what was there works until the new one is whole."""
    (archive, partial), size = parts[0], sum(_size(path) for _, path in parts)
    listener.progress(Meter(COPYING, size).look(0, partial.name))
    fresh = place.with_name(f"{place.name}.fresh-{os.getpid()}")
    try:
        for number, (each, path) in enumerate(parts):
            with _opened(each, path) as tar:
                _extract(tar, fresh / str(number), each.limits)
        root = _root(fresh / "0", archive.program)
        if not (root / archive.program).is_file():
            message = f"{archive.name} does not contain {archive.program}"
            raise MscliError(Code.DOWNLOAD_FAILED, message, archive.publisher.page, {"cause": "unknown"})
        for number in range(1, len(parts)):
            _merge(fresh / str(number), (root / archive.program).parent)
        if try_out:
            try_out(root / archive.program)
        _swap(root, place)
    except OSError as fault:
        raise _with_own_hint(unwritable(place, fault, size)) from fault
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    listener.progress(Meter(DONE, size).look(size))


def _merge(folder: Path, into: Path) -> None:
    """Move the files and links of an unpacked archive into one folder, out of whatever folders they are in."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or path.is_file():
            path.replace(into / path.name)


class _Entry(tarfile.TarInfo):
    """An entry whose name and further fields have a sane size: tarfile reads those into memory, whatever their size."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo | None:
        if self.type not in (*tarfile.REGULAR_TYPES, tarfile.DIRTYPE) and self.size > MOST_NAME_BYTES:
            raise tarfile.ReadError(f"the header record of an entry has {self.size:,} bytes")
        return super()._proc_member(tar)  # type: ignore[misc, no-any-return]  # tarfile's documented way to extend it


def _extract(tar: tarfile.TarFile, folder: Path, limits: Largest) -> None:
    """Write the archive's folders, files and links below `folder`; refuse everything else, and whatever leaves it.

    Not tarfile's own filters: Python 3.10.0 to 3.10.11 and 3.11.0 to 3.11.3 have none, and later ones were got round.
    A link may lead up only at its beginning, and nothing is written through a link: so none can end outside. Raises
    tarfile.TarError, and for what the disk says OSError.
    """
    left, folder = limits.unpacked_bytes, folder.resolve()
    folder.mkdir(parents=True)
    for count, entry in enumerate(tar, 1):
        name = entry.name.removeprefix("./").rstrip("/")
        if entry.isdir() and name in ("", "."):
            continue
        left -= entry.size
        if count > limits.entries or left < 0 or name.count("/") >= limits.depth:
            raise tarfile.TarError(f"it is too large for an engine ({entry.name}, entry {count:,})")
        place = folder / name
        if not stays_below(name) or _through_a_link(folder, place):
            raise tarfile.TarError(f"{entry.name} would be written outside the folder")
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_symlink() or place.is_file():
            place.unlink()
        _write_entry(tar, entry, folder, place)


def _through_a_link(folder: Path, place: Path) -> bool:
    return any(parent.is_symlink() for parent in place.parents if parent != folder and parent.is_relative_to(folder))


def _write_entry(tar: tarfile.TarFile, entry: tarfile.TarInfo, folder: Path, place: Path) -> None:
    if entry.isdir():
        place.mkdir(exist_ok=True)
    elif entry.isreg() and (content := tar.extractfile(entry)) is not None:
        with content, place.open("xb") as file:
            shutil.copyfileobj(content, file, BLOCK_BYTES)
        place.chmod(0o755 if entry.mode & 0o111 else 0o644)
    elif entry.issym() and _link_stays(entry.linkname, len(place.relative_to(folder).parts) - 1):
        place.symlink_to(entry.linkname)
    elif entry.islnk() and stays_below(entry.linkname) and not _through_a_link(folder, folder / entry.linkname):
        os.link(folder / entry.linkname, place, follow_symlinks=False)
    else:
        raise tarfile.TarError(f"{entry.name} is not a regular file, or links to {entry.linkname} outside the folder")


def _link_stays(target: str, depth: int) -> bool:
    """Whether a symbolic link in a folder `depth` levels down ends inside, wherever further links on its way lead."""
    parts = [part for part in target.split("/") if part != "."]
    up = next((place for place, part in enumerate(parts) if part != ".."), len(parts))
    return up <= depth and (up == len(parts) or stays_below("/".join(parts[up:])))


def _root(fresh: Path, program: str) -> Path:
    """The folder that holds the content: `fresh`, or the folder in it that has the program."""
    wrapped = (path for path in fresh.glob("*") if (path / program).is_file())
    return fresh if (fresh / program).is_file() else next(wrapped, fresh)


def _swap(fresh: Path, place: Path) -> None:
    old = place.with_name(f"{place.name}.old-{os.getpid()}")
    if place.exists():
        place.rename(old)
    fresh.rename(place)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _opened(archive: Archive, path: Path) -> Iterator[tarfile.TarFile]:
    """The archive as a stream of entries. Raises DOWNLOAD_FAILED when it cannot be read."""
    codec: Any = _zstd() if archive.name.endswith(".zst") else gzip
    broken: type[Exception] = codec.ZstdError if archive.name.endswith(".zst") else gzip.BadGzipFile
    try:
        with codec.open(path) as packed, tarfile.open(fileobj=packed, mode="r|", tarinfo=_Entry) as tar:
            yield tar
    except (tarfile.TarError, EOFError, zlib.error, broken) as fault:
        message = f"{archive.name} cannot be unpacked: {fault}"
        raise MscliError(Code.DOWNLOAD_FAILED, message, "Run it again.", {"cause": "corrupt_download"}) from fault


def _zstd() -> Any:
    """Python's own zstd, or its twin for older ones. Raises ENGINE_MISSING where that was not installed with mscli."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return import_module(name)
        except ImportError:
            continue
    hint = "Install it in mscli's environment: pip install backports.zstd"
    raise MscliError(Code.ENGINE_MISSING, "the archive is packed with zstd, and this Python cannot unpack it", hint)


def _check_room(folder: Path, needed_bytes: int, what: str) -> None:
    try:
        check_room(folder, needed_bytes, what)
    except MscliError as full:
        raise _with_own_hint(full) from full


def _with_own_hint(fault: MscliError) -> MscliError:
    """A fault of the disk, with the setting that moves mscli's own folder where no other disk was found."""
    if "elsewhere" in fault.details:
        return fault
    return MscliError(fault.code, fault.message, OWN_FOLDER_FULL, fault.details)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _unreached(url: str, fault: HttpFault, publisher: Publisher) -> MscliError:
    cause = "stalled_download" if fault.kind == "silent" else "network_proxy"
    return MscliError(
        Code.DOWNLOAD_FAILED,
        f"cannot download {url}: {fault.seen}",
        f"Offline? Then {publisher.offline} Behind a proxy: set HTTPS_PROXY. What was downloaded is kept.",
        {"cause": cause, "url": url},
    )


def _refused(url: str, status: int, publisher: Publisher) -> MscliError:
    cause = "model_not_found" if status == 404 else "network_proxy"
    hint = f"Check that the release exists: {publisher.page}" if status == 404 else "Try again later."
    if status in (403, 429):
        hint = "Too many requests have come from your address (GitHub allows 60 an hour): try again later."
    return MscliError(Code.DOWNLOAD_FAILED, f"{url} answers HTTP {status}", hint, {"cause": cause, "url": url})
