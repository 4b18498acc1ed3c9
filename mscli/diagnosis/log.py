"""A log read from a file or a pipe: its end, as text, and what carried it taken off: encodings, the wrappings of
Docker, journald, Kubernetes and Compose, colors, and what a paste adds: quotes, fences, headings between several logs.
"""

from __future__ import annotations

import codecs
import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

READ_BYTES = 50 * 2**20
_BLOCK = 2**16


def read_log(path: Path) -> tuple[str, bool]:
    """The last 50 MB of a log file or pipe, and whether it is longer.

    Waits for the end of a pipe. Raises OSError.
    """
    with path.open("rb") as handle:
        return _tail(handle) if handle.seekable() else read_stream(handle)


def _tail(handle: BinaryIO) -> tuple[str, bool]:
    size = handle.seek(0, 2)
    handle.seek(max(0, (size - READ_BYTES) & ~1))  # an even place: UTF-16 takes two bytes
    return decoded(handle.read()), size > READ_BYTES


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


_PROBE_BYTES = 4096
_PROBE_LINES = 400
_LAYERS = 4  # a quoted log of Compose with Docker's times before journald's has as many
_FEW = 3  # lines in which a prefix that is nothing else counts, however few of all they are

# Escape sequences, also as editors and web pages show them: with the name of their first character, or without it.
_ESCAPES = re.compile(r"(?:\x1b|\^\[|␛|\\(?:u001b|x1b|033|e))\[[0-9;?]*[ -/]*[@-~]")
_ESCAPED = re.compile(r"\[(?:\d{1,2}(?:;\d{1,3}){0,4}m|m(?![a-z]))")  # not the one of `[mistral.py:44]`

# What stands before each line where most lines have it.
_MOSTLY = (
    re.compile(r"^[\w.-]{1,80} +\| ?"),  # `vllm-1  | ...` of Compose
    re.compile(r"^\[pod/[^\]]{1,200}\] "),  # of `kubectl logs --prefix`
)
_INDENT = re.compile(r"^(?: {4}|\t)")  # of a block in Markdown, where every line has it
# What stands before lines, and is nothing that an engine writes.
_SURELY = (
    re.compile(r"^(?:> ?)+(?! ?>)"),  # a quote
    re.compile(r"^\d{4}-\d\d-\d\dT\S+ (?:stdout|stderr) [FP] "),  # containerd's files
    re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7,9}Z "),  # `docker logs -t`, `kubectl logs --timestamps`
    # journalctl, by itself and with -o short-iso or -o short-precise; the kernel's and systemd's lines keep it
    re.compile(
        r"^(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d+)?|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:[.,]\d+)?[+-]\d\d:?\d\d) "
        r"[\w.-]+ (?!kernel\b|systemd)[\w@.-]+(?:\[\d+\])?: "
    ),
)
SECTION = "\f"
"""A line that stands where one log ends and another begins."""
_HEADING = re.compile(r"^\s*(?:(?:```|~~~)[\w +-]*|==> .{1,200} <==|</?(?:details|summary|pre|code)>.{0,200})\s*$")

Unwrap = Callable[[Sequence[str]], list[str]]


def encoding_of(data: bytes) -> str:
    """The encoding of a log by its first bytes: UTF-8, or what PowerShell writes by `>` (UTF-16, with its mark or, in
    the middle of a file, told by its zero bytes)."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    probe = data[:_PROBE_BYTES]
    for zeros, letters, encoding in ((probe[1::2], probe[0::2], "utf-16-le"), (probe[0::2], probe[1::2], "utf-16-be")):
        if zeros.count(0) > len(zeros) * 0.7 and letters.count(0) < len(letters) * 0.3:
            return encoding
    return "utf-8-sig"


def decoded(data: bytes) -> str:
    """The text of a log. What is no text becomes replacement characters."""
    return data.decode(encoding_of(data), errors="replace")


def plain(text: str) -> str:
    """The text without escape sequences."""
    return _ESCAPED.sub("", _ESCAPES.sub("", text)) if "[" in text else text


def unwrapping(lines: Sequence[str]) -> Unwrap:
    """How to take off what carries the lines of a log, told by its first ones: records of Docker or journald, names and
    times before each line, quotes. Headings and fences between logs become SECTION."""
    steps: list[Unwrap] = []
    probe = [line for line in lines if line.strip()][:_PROBE_LINES]
    while len(steps) < _LAYERS and (step := _step(probe)):
        steps.append(step)
        probe = step(probe)

    def unwrap(taken: Sequence[str]) -> list[str]:
        for step in steps:
            taken = step(taken)
        return [SECTION if _HEADING.match(line) else line for line in taken]

    return unwrap


def _step(probe: Sequence[str]) -> Unwrap | None:
    """The outermost wrapping of the lines; None where there is none left."""
    if _share(probe, _record) > 0.5:
        return lambda lines: "".join(_messages(lines)).splitlines()
    for prefix in _SURELY:
        if _share(probe, prefix.match) > 0.5 or sum(1 for line in probe if prefix.match(line)) >= _FEW:
            return _without(prefix)
    if probe and _share(probe, _INDENT.match) == 1:
        return _without(_INDENT)
    return next((_without(prefix) for prefix in _MOSTLY if _share(probe, prefix.match) > 0.5), None)


def _without(prefix: re.Pattern[str]) -> Unwrap:
    return lambda lines: [prefix.sub("", line, count=1) for line in lines]


def _share(probe: Sequence[str], fits: Callable[[str], object]) -> float:
    return sum(1 for line in probe if fits(line)) / len(probe) if probe else 0.0


def _messages(lines: Sequence[str]) -> Iterator[str]:
    """What the records say, each with its line end: Docker cuts long lines into records without one."""
    for line in lines:
        said = _record(line)
        yield f"{line}\n" if said is None else said


def _record(line: str) -> str | None:
    """What one record says; None where the line is no record."""
    if not line.lstrip().startswith("{"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict):
        return None
    if isinstance(said := record.get("log"), str):
        return said if "stream" in record else f"{said.rstrip()}\n"
    return _journal(record)


def _journal(record: dict[str, object]) -> str | None:
    """journald's message: text, or its bytes where they are no text."""
    if "MESSAGE" not in record:
        return None
    said = record["MESSAGE"]
    if isinstance(said, list):
        return f"{bytes(byte for byte in said if isinstance(byte, int) and 0 <= byte < 256).decode(errors='replace')}\n"
    return f"{said or ''}\n"
