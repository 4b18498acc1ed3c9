"""A log as the doctor reads it: without wrappings, escape sequences, harmless noise and endless repetition."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

from mscli.diagnosis.causes import read_data
from mscli.diagnosis.log_formats import decoded, unwrapped
from mscli.diagnosis.matching import compiled

READ_BYTES = 50 * 2**20
_BLOCK = 2**16
_REPEATS = 3
_ENDING = 60
_LONGEST = 4000
_MOST = 8_000
_TOGETHER = 50
_MOST_CHARACTERS = 700_000

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_CHANGING = dict.fromkeys(map(ord, "0123456789abcdef█▉▊▋▌▍▎▏#="))  # what differs from one such line to the next

# Lines that tell of an error, and those of them that only say that there was one, or where.
_ERROR = (
    r"^[\d.]+ E |(?:Error|Exception)\b|\bfail(?:ed|ure|s)?\b|\bfatal\b|panicked|\bcannot\b|can't|\bunable\b|\binvalid\b"
    r"|not (?:supported|found|available|installed|allowed|set)|\bmissing\b|unsupported|\bunknown [^)]|incompatible"
)
_NO_ERROR = (
    r"^[\d.]+ [DI] |\b(?:INFO|DEBUG|WARN(?:ING)?)\b|File \"|Engine core initialization failed|WorkerProc"
    r"|EngineCore failed|EngineDeadError|Failed core proc|RecvError|CalledProcessError|exit status"
    r"|See root cause above|Traceback|resource_tracker|exiting due to|please check the input params"
    r"|cleaning up before exit"
)


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


def telling(log: str) -> list[str]:
    """The lines in which a cause can show, in their order: each shape of a line at most three times, but the end whole.

    Progress bars that overwrite themselves count as lines. A line is cut at 4000 characters. Of what is longer than
    8,000 lines or 700,000 characters, the first quarter and the last three quarters of that are kept.
    """
    plain = unwrapped(log)
    plain = _ESCAPES.sub("", plain) if "\x1b" in plain else plain
    lines = [line.rstrip()[:_LONGEST] for line in plain.replace('\\"', '"').splitlines()]
    end = len(lines) - _ENDING
    seen: Counter[str] = Counter()
    kept: list[str] = []
    for number, line in enumerate(lines):
        shape = line.translate(_CHANGING)
        seen[shape] += 1
        if line and (seen[shape] <= _REPEATS or number >= end) and not line.isspace():
            kept.append(line)
    return _shortened(list(_without_noise(kept)))


def _without_noise(lines: Sequence[str]) -> Iterator[str]:
    """The lines that are not noise, looked at together where none of many is."""
    noise = compiled(_noise())
    for begin in range(0, len(lines), _TOGETHER):
        group = lines[begin : begin + _TOGETHER]
        if noise.search("\n".join(group).encode(errors="replace")):
            yield from (line for line in group if not _is_noise(line.encode(errors="replace")))
        else:
            yield from group


def _shortened(lines: list[str]) -> list[str]:
    """The lines, or the first quarter and the last three quarters of as many as are read."""
    ends = list(accumulate(map(len, lines)))
    if len(lines) <= _MOST and (not ends or ends[-1] <= _MOST_CHARACTERS):
        return lines
    first = min(_MOST // 4, bisect_right(ends, _MOST_CHARACTERS // 4))
    last = max(len(lines) - (_MOST - _MOST // 4), bisect_left(ends, ends[-1] - _MOST_CHARACTERS * 3 // 4))
    return lines[:first] + lines[max(first, last) :]


def error_lines(lines: Iterable[str]) -> list[str]:
    """Those lines that tell of an error and say more than that there was one."""
    error, no_error = compiled(_ERROR), compiled(_NO_ERROR)
    encoded = ((line, line.encode(errors="replace")) for line in lines)
    return [line for line, data in encoded if error.search(data) and not no_error.search(data)]


def _is_noise(line: bytes) -> bool:
    if not compiled(_noise()).search(line):
        return False
    return any(
        compiled("|".join(row["patterns"])).search(line)
        and not any(compiled(other).search(line) for other in row.get("unless_here", ()))
        for row in read_data("noise")
    )


@lru_cache(maxsize=1)
def _noise() -> str:
    return "|".join(pattern for row in read_data("noise") for pattern in row["patterns"])
