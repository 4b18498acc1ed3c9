"""Who speaks in each line of a log: whose word it is decides what it can show.

A frame of a traceback names functions and files, a command names options, a client tells of a server that it does not
reach, and a server of the runner that it started: the same noun means another thing in each.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from mscli.diagnosis.causes import read_data
from mscli.diagnosis.matching import compiled

FRAME, INNERMOST, COMMAND, SERVER, OTHER, ANYONE = "frame", "innermost", "command", "server", "other", "anyone"
SILENT = frozenset({FRAME, INNERMOST, COMMAND})
"""They quote: what stands there is no word about what happened, unless a signature asks for it. INNERMOST is the last
frame of a traceback, where the error arose."""

_PYTHON_FRAME = re.compile(r"^(?P<before>.{0,400}?) {0,2}File \"[^\"\n]{1,400}\", line \d+(?:, in [^:\n]{1,200})?$")
_RAISES = re.compile(r"\s+raise \w[\w.]*\(.*[\"']")  # its source holds the message, where the line itself was cut off
_OF_REQUEST = "Exception in ASGI application"  # uvicorn, before the traceback of what ended one request
_RECORD = re.compile(r"(?:INFO|WARNING|ERROR|CRITICAL|DEBUG)\b|\(\w+(?: pid=\d+)?\) ")  # no traceback goes on in it
_TRACEBACK_LINES = 300


@lru_cache(maxsize=1)
def speakers() -> Mapping[str, str]:
    """For each speaker, the first that fits being right, a pattern in RE2's syntax of its lines."""
    return {row["speaker"]: "|".join(row["patterns"]) for row in read_data("speakers")}


def speaker(lines: Sequence[str], number: int) -> str:
    """Who says a line; OTHER where nothing tells."""
    if frame := _PYTHON_FRAME.match(lines[number]):
        return INNERMOST if _is_last(lines, number, frame) else FRAME
    if (before := _of_source(lines, number)) is not None:
        return OTHER if _RAISES.match(lines[number], before) else FRAME
    if of_request(lines, number):
        return SERVER
    line = lines[number][:400].encode(errors="replace")
    return next((name for name, pattern in speakers().items() if compiled(pattern).search(line)), OTHER)


def of_request(lines: Sequence[str], number: int) -> bool:
    """Whether a line belongs to the traceback of what ended one request of a server that goes on."""
    for line in reversed(lines[max(number - _TRACEBACK_LINES, 0) : number + 1]):
        if _OF_REQUEST in line:
            return True
        if _RECORD.match(line):
            return False
    return False


def _of_source(lines: Sequence[str], number: int) -> int | None:
    """Where the source code begins that Python shows below a frame, indented deeper behind the same prefix; None: it is
    no such line."""
    frame = _PYTHON_FRAME.match(lines[number - 1]) if number else None
    if frame is None or not lines[number][frame.end("before") :].startswith("    "):
        return None
    return frame.end("before")


def _is_last(lines: Sequence[str], number: int, frame: re.Match[str]) -> bool:
    """Whether no frame follows in the same traceback."""
    follow = (line for line in lines[number + 1 : number + 4] if not line[frame.end("before") :].startswith("    "))
    return not _PYTHON_FRAME.match(next(follow, ""))
