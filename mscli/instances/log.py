"""An instance's log, which may be of any size: its last lines, what was added since the last look, and the part of the
last start. A companion rotates it meanwhile.

Everything here takes time in proportion to what is read, and memory for one block and one line: engines write
gigabytes, and progress bars of one endless line. A line ends at a line feed, a carriage return or both.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

LONGEST_LINE_BYTES = 16 * 1024
"""What is longer is cut, and says how much was."""
_BLOCK_BYTES = 256 * 1024
_LOOKED_THROUGH = 500
_LINE_END = re.compile(rb"\r\n|\n|\r")


class Lines:
    """Makes lines of blocks of bytes that are cut anywhere."""

    def __init__(self) -> None:
        self._held = b""
        self._cut_bytes = 0
        self._after_return = False

    def feed(self, block: bytes) -> Iterator[str]:
        """The lines that end in this block."""
        if self._after_return and block.startswith(b"\n"):
            block = block[1:]  # the second half of a line end whose first half ended the last block
        self._after_return = block.endswith(b"\r") if block else self._after_return
        *whole, rest = _LINE_END.split(block)
        for part in whole:
            self._take(part)
            yield self._line()
        self._take(rest)

    def end(self) -> Iterator[str]:
        """The last line, where the bytes end without a line end."""
        if self._held:
            yield self._line()

    def _take(self, part: bytes) -> None:
        room = LONGEST_LINE_BYTES - len(self._held)
        self._held += part[:room]
        self._cut_bytes += max(0, len(part) - room)

    def _line(self) -> str:
        text = self._held.decode(errors="replace")
        more = f" ... [{self._cut_bytes:,} bytes cut]" if self._cut_bytes else ""
        self._held, self._cut_bytes = b"", 0
        return text + more


def last_lines(path: Path, count: int | None) -> Iterator[str]:
    """The last `count` lines of a file (None: all of them). Raises OSError."""
    with path.open("rb") as handle:
        handle.seek(0 if count is None else _start_of_last(handle, count))
        lines = Lines()
        while block := handle.read(_BLOCK_BYTES):
            yield from lines.feed(block)
        yield from lines.end()


def _start_of_last(handle: BinaryIO, count: int) -> int:
    """Where the last `count` lines begin, looked for from the end."""
    position = handle.seek(0, 2)
    if count == 0:
        return position
    wanted, last = count, True
    while position > 0:
        block_end, position = position, max(0, position - _BLOCK_BYTES)
        handle.seek(position)
        block = handle.read(block_end - position)
        if last:
            block, last = block[: -len(_final_end(block))] if _final_end(block) else block, False
        if position and block.startswith(b"\n"):  # maybe the second half of a line end: left to the block before it
            block, position = block[1:], position + 1
        found = block.count(b"\n") + block.count(b"\r") - block.count(b"\r\n")
        if found >= wanted:
            ends = [match.end() for match in _LINE_END.finditer(block)]
            return position + ends[-wanted]
        wanted -= found
    return 0


def _final_end(block: bytes) -> bytes:
    """The line end at the very end of a block: it ends the last line and begins none."""
    return b"\r\n" if block.endswith(b"\r\n") else block[-1:] if block[-1:] in (b"\n", b"\r") else b""


def moment(line: str, this_year: int) -> float | None:
    """Seconds since the epoch of the line's time stamp, in local time where it names no zone; None without one."""
    from datetime import datetime  # 2 ms that only a look for the last request needs

    # As the engines write it: 2026-11-29T20:33:11.5Z, 2026/11/29 - 20:33:11, and vLLM's 11-29 20:33:11 without a year.
    found = re.search(
        r"(?:(\d{4})[-/])?(\d\d)[-/](\d\d)(?:T| - | )(\d\d):(\d\d):(\d\d)(?:[.,]\d+)?(Z|[+-]\d\d:?\d\d)?", line[:200]
    )
    if found is None:
        return None
    year, month, day, hour, minute, second, zone = found.groups()
    try:
        moment = datetime(int(year or this_year), int(month), int(day), int(hour), int(minute), int(second))
    except ValueError:
        return None
    if not zone:
        return moment.timestamp()
    return datetime.fromisoformat(f"{moment.isoformat()}{'+00:00' if zone == 'Z' else _colon(zone)}").timestamp()


def _colon(zone: str) -> str:
    return zone if ":" in zone else f"{zone[:3]}:{zone[3:]}"


def last_request(path: Path, begun: float) -> float | None:
    """When the last request came, by the last lines of the log, in seconds since the epoch; None where none shows it.

    `begun`: when the engine was started. A line without a time of its own has that of the last one before it.
    """
    year, stamp, found = time.localtime(begun).tm_year, None, None
    try:
        lines = list(last_lines(path, _LOOKED_THROUGH))
    except OSError:
        return None
    for line in lines:
        # llama.cpp counts from its start: minutes.seconds.ms.us.
        relative = re.match(r"(\d+)\.(\d\d)\.(\d{3})\.\d{3} ", line)
        told = begun + int(relative[1]) * 60 + int(relative[2]) if relative else moment(line, year)
        stamp = stamp if told is None else told
        request = re.search(r"\bPOST\s+\"?/(?:v1|api)/(?:chat|comp|gen)|\bslot +(?:launch_slot_|release):", line)
        found = stamp if request else found
    return found


class LogTail:
    """The lines that were added to a log file since the last look, also where it was rotated in between."""

    def __init__(self, path: Path) -> None:
        self._path = path
        found = _stat(path)
        self._offset = found.st_size if found else 0
        self._inode: int | None = found.st_ino if found else None
        self._lines = Lines()

    def lines(self) -> Iterator[str]:
        """New whole lines; an unfinished last line is kept for the next look."""
        try:
            handle = self._path.open("rb")
        except FileNotFoundError:
            return
        with handle:
            inode = os.fstat(handle.fileno()).st_ino
            if self._inode not in (None, inode):
                yield from self._rotated(inode)
                self._offset = 0
            self._inode = inode
            yield from self._read(handle)

    def _rotated(self, current: int) -> Iterator[str]:
        """What was added to the file of the last look, and to those after it, before the `current` one was begun."""
        older = [path for path in self._path.parent.glob(f"{self._path.name}.*") if path.suffix[1:].isdigit()]
        older.sort(key=lambda path: int(path.suffix[1:]))
        inodes = [found.st_ino if (found := _stat(path)) else None for path in older]
        first = inodes.index(self._inode) if self._inode in inodes else len(inodes)
        end = inodes.index(current) if current in inodes else len(inodes)  # rotated since it was opened
        for path in older[first:end]:
            with contextlib.suppress(FileNotFoundError), path.open("rb") as handle:  # too many came meanwhile
                yield from self._read(handle)
            self._offset = 0

    def _read(self, handle: BinaryIO) -> Iterator[str]:
        handle.seek(self._offset)
        while block := handle.read(_BLOCK_BYTES):
            self._offset += len(block)
            yield from self._lines.feed(block)


def begin_part(log: Path) -> int:
    """Where the part of a start that begins now will be, in bytes; noted beside the log for starts without a record."""
    (log.parent / "rotated").unlink(missing_ok=True)
    found = _stat(log)
    start = found.st_size if found else 0
    with contextlib.suppress(OSError):
        (log.parent / "log_start").write_text(str(start))
    return start


def last_start(log: Path) -> int:
    """Where the last start's part begins, in bytes, as `begin_part` has noted; 0 where it has not."""
    try:
        noted = int((log.parent / "log_start").read_text())
    except (OSError, ValueError):
        return 0
    return part_start(log, max(0, noted))


def part_start(log: Path, noted: int) -> int:
    """Where the last start's part begins in the file: `noted` in the record, until the log was rotated or emptied."""
    found = _stat(log)
    return 0 if found is None or noted > found.st_size or (log.parent / "rotated").exists() else noted


def part(log: Path, noted: int, most_bytes: int) -> str:
    """The last start's part of the log, or its last `most_bytes`; empty where it cannot be read."""
    try:
        with log.open("rb") as handle:
            handle.seek(max(part_start(log, noted), handle.seek(0, 2) - most_bytes))
            return handle.read(most_bytes).decode(errors="replace")
    except OSError:
        return ""


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None
