"""Partial: an unfinished file of which every byte that arrived is kept, whatever ends the process.

Why not huggingface_hub's own download: older versions appended to `<etag>.incomplete` and went on from its size, but
2.x writes a file of a random name per process and deletes it on any error. Measured with 2.4.0 and a hub on loopback:
after Ctrl-C the partial file is gone, after kill -9 it stays as litter, and either way the next run starts at byte 0.
So mscli fetches the bytes itself, into the cache's own layout, where every other user of the cache finds them; only
what is unfinished is its own:

    blobs/<etag>.mscli.incomplete   the bytes at their final places (a sparse file)
    blobs/<etag>.mscli.parts        8 bytes part size, then 8 bytes per part: how many of its bytes have arrived

Data is written before its count. A killed process loses no page of either file, so the counts never promise bytes that
are not there, and at most one chunk per connection is fetched again. A power cut can lose pages: the hash check, before
the file gets its final name, finds that.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from mscli.errors import Code, MscliError
from mscli.frozen import frozen
from mscli.weights.fault import unwritable

MIN_PART_BYTES, MAX_PART_BYTES = 1 << 20, 64 << 20
_COUNT = struct.Struct("<Q")


@frozen
class Gap:
    """Bytes still to come: from `start` up to `end` (exclusive), in part `part`."""

    part: int
    start: int
    end: int


class Partial:
    """One unfinished blob of `size` bytes, cut in parts that are each filled from their start.

    A part is written by one thread at a time; any thread may read. The files close with the last reference to this.
    """

    def __init__(self, blob: Path, size: int) -> None:
        self.blob, self.size = blob, size
        self._first_gap = 0
        try:
            blob.parent.mkdir(parents=True, exist_ok=True)
            self._data, self._journal = (_open(path) for path in partial_paths(blob))
            self._part_bytes, self._arrived = _read_journal(self._journal, self._data, size)
        except OSError as error:
            raise unwritable(blob, error, size) from error

    @property
    def arrived_bytes(self) -> int:
        """Bytes on disk."""
        return sum(self._arrived)

    def gaps(self) -> Iterator[Gap]:
        """The parts that are not whole, in order."""
        for part in range(len(self._arrived)):
            if (gap := self.gap(part)) is not None:
                yield gap

    def gap(self, part: int) -> Gap | None:
        """What part `part` lacks, or None when it is whole."""
        start, end = part * self._part_bytes, min((part + 1) * self._part_bytes, self.size)
        arrived = self._arrived[part]
        return Gap(part, start + arrived, end) if start + arrived < end else None

    def write(self, gap: Gap, data: bytes) -> Gap | None:
        """Stores the next bytes of a gap and returns what is left of it. Raises MscliError(DISK_FULL) or (FILE)."""
        start, rest = gap.start, memoryview(data)[: gap.end - gap.start]
        try:
            while rest:
                written = os.pwrite(self._data.fileno(), rest, start)
                start, rest = start + written, rest[written:]
            self._arrived[gap.part] = start - gap.part * self._part_bytes
            os.pwrite(self._journal.fileno(), _COUNT.pack(self._arrived[gap.part]), _COUNT.size * (1 + gap.part))
        except OSError as error:
            raise unwritable(self.blob, error, self.size - self.arrived_bytes) from error
        return self.gap(gap.part)

    def whole_prefix(self) -> int:
        """How many bytes from the start of the file are there without a gap."""
        while self._first_gap < len(self._arrived) and self.gap(self._first_gap) is None:
            self._first_gap += 1
        gap = self.gap(self._first_gap) if self._first_gap < len(self._arrived) else None
        return self.size if gap is None else gap.start

    def read(self, buffer: memoryview, offset: int) -> int:
        """Reads into `buffer` from `offset`; returns the bytes read. Raises MscliError(FILE) when they are gone."""
        try:
            count = os.preadv(self._data.fileno(), [buffer], offset)
        except OSError as error:
            raise unwritable(self.blob, error, 0) from error
        if buffer and not count:
            raise MscliError(Code.FILE, f"another program truncated {self._data.name}", "run the command again")
        return count

    def restart(self) -> None:
        """Forgets every byte: what arrived was not what the repository holds."""
        self._first_gap = 0
        for part in range(len(self._arrived)):
            self._arrived[part] = 0
            os.pwrite(self._journal.fileno(), _COUNT.pack(0), _COUNT.size * (1 + part))

    def finish(self) -> None:
        """Gives the whole, checked file its final name."""
        data, journal = partial_paths(self.blob)
        os.ftruncate(self._data.fileno(), self.size)
        try:
            data.replace(self.blob)
        except OSError as error:
            raise unwritable(self.blob, error, 0) from error
        journal.unlink(missing_ok=True)


def partial_paths(blob: Path) -> tuple[Path, Path]:
    """The unfinished data of a blob, and the counts of what has arrived."""
    return blob.with_name(f"{blob.name}.mscli.incomplete"), blob.with_name(f"{blob.name}.mscli.parts")


def arrived_bytes(blob: Path, size: int) -> int:
    """Bytes of an unfinished blob that are on disk already, by this process or another; touches nothing."""
    data, journal = partial_paths(blob)
    try:
        with data.open("rb", buffering=0) as data_file, journal.open("rb", buffering=0) as journal_file:
            return sum(_stored_counts(journal_file, data_file, size)[1])
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return 0


def _open(path: Path) -> FileIO:
    def create(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_CREAT, 0o666)

    return FileIO(path, "r+", opener=create)


def _read_journal(journal: FileIO, data: FileIO, size: int) -> tuple[int, list[int]]:
    part_bytes, arrived = _stored_counts(journal, data, size)
    if not arrived:
        part_bytes = min(max(-(-size // 64), MIN_PART_BYTES), MAX_PART_BYTES)
        arrived = [0] * -(-size // part_bytes)
        os.ftruncate(data.fileno(), 0)
        os.pwrite(journal.fileno(), b"".join(_COUNT.pack(value) for value in (part_bytes, *arrived)), 0)
        os.ftruncate(journal.fileno(), _COUNT.size * (1 + len(arrived)))
    return part_bytes, arrived


def _stored_counts(journal: FileIO, data: FileIO, size: int) -> tuple[int, list[int]]:
    """Part size and counts as stored; no counts when the two files do not match (any more)."""
    raw = os.pread(journal.fileno(), _COUNT.size * (2 + size // MIN_PART_BYTES), 0)
    values = [value for (value,) in _COUNT.iter_unpack(raw[: len(raw) // _COUNT.size * _COUNT.size])]
    part_bytes, arrived = (values[0], values[1:]) if values else (0, [])
    if not part_bytes or len(arrived) != -(-size // part_bytes):
        return part_bytes, []
    last = max((part * part_bytes + count for part, count in enumerate(arrived) if count), default=0)
    fits = all(count <= part_bytes for count in arrived) and last <= min(size, os.fstat(data.fileno()).st_size)
    return part_bytes, arrived if fits else []
