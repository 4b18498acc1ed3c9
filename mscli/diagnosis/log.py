"""A log read from a file or a pipe: its end, as text. `excerpt.py` takes what can tell of a log of any length."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import BinaryIO

from mscli.diagnosis.log_formats import decoded

READ_BYTES = 50 * 2**20
_BLOCK = 2**16


def read_log(path: Path, start: int = 0) -> tuple[str, bool]:
    """The last 50 MB of a log file (of what comes after its byte `start`) or pipe, and whether it is longer.

    Waits for the end of a pipe. Raises OSError.
    """
    with path.open("rb") as handle:
        return _tail(handle, start) if handle.seekable() else read_stream(handle)


def _tail(handle: BinaryIO, start: int) -> tuple[str, bool]:
    size = handle.seek(0, 2)
    handle.seek(max(start, (size - READ_BYTES) & ~1))  # an even place: UTF-16 takes two bytes
    return decoded(handle.read()), size - start > READ_BYTES


def read_stream(stream: BinaryIO, limit_bytes: int = READ_BYTES) -> tuple[str, bool]:
    """The last `limit_bytes` of what comes in until its end, and whether there was more. Waits for the end."""
    kept: deque[bytes] = deque()
    size, cut = 0, False
    while block := stream.read(_BLOCK):
        kept.append(block)
        size += len(block)
        while size - len(kept[0]) >= limit_bytes:
            size -= len(kept.popleft())
            cut = True
    return decoded(b"".join(kept)), cut
