"""An instance's log, which may be of any size: its last lines, and what was added since the last look.

Everything here takes time in proportion to what is read, and memory for one block and one line: engines write
gigabytes, and progress bars of one endless line. A line ends at a line feed, a carriage return or both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

LONGEST_LINE_BYTES = 16 * 1024
"""What is longer is cut, and says how much was."""
_BLOCK_BYTES = 256 * 1024
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


class LogTail:
    """The lines that were added to a log file since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0
        self._lines = Lines()

    def lines(self) -> Iterator[str]:
        """New whole lines; an unfinished last line is kept for the next look."""
        try:
            with self._path.open("rb") as handle:
                handle.seek(self._offset)
                while block := handle.read(_BLOCK_BYTES):
                    self._offset += len(block)
                    yield from self._lines.feed(block)
        except FileNotFoundError:
            return
