"""What carried a log taken off: encodings, and the wrappings of Docker, journald, Kubernetes and Compose."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

_PROBE_BYTES = 4096
_PROBE_LINES = 400

# `vllm-1  | ...` of Compose; `[pod/name/container] ...` of `kubectl logs --prefix`; containerd's own files.
_PREFIXES = (
    re.compile(r"^[\w.-]{1,80} +\| ?"),
    re.compile(r"^\[pod/[^\]]{1,200}\] "),
    re.compile(r"^\d{4}-\d\d-\d\dT\S+ (?:stdout|stderr) [FP] "),
)


def decoded(data: bytes) -> str:
    """The text of a log: UTF-8, or what PowerShell writes by `>` (UTF-16, with its mark or, in the middle of a file,
    told by its zero bytes). What is no text becomes replacement characters."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    probe = data[:_PROBE_BYTES]
    for zeros, letters, encoding in ((probe[1::2], probe[0::2], "utf-16-le"), (probe[0::2], probe[1::2], "utf-16-be")):
        if zeros.count(0) > len(zeros) * 0.7 and letters.count(0) < len(letters) * 0.3:
            return data.decode(encoding, errors="replace")
    return data.decode("utf-8-sig", errors="replace")


def unwrapped(log: str) -> str:
    """The log's own lines, where each stands in a record of Docker or journald, or behind a container's name."""
    lines = log.splitlines()
    if _mostly(lines, _record):
        return "".join(_messages(lines))
    for prefix in _PREFIXES:
        if _mostly(lines, prefix.match):
            return "\n".join(prefix.sub("", line, count=1) for line in lines)
    return log


def _mostly(lines: Sequence[str], fits: Callable[[str], object]) -> bool:
    """Whether more than half of the first lines that hold anything fit."""
    probe = list(islice((line for line in lines if line.strip()), _PROBE_LINES))
    return bool(probe) and sum(1 for line in probe if fits(line)) * 2 > len(probe)


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
