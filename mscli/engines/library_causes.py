"""Why a server around a Python library did not start: its log, by a table of signs, gives a code of the cause list."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mscli.diagnosis.signature import Sign, first
from mscli.engines.engine import Cause

_LINES = 8
# Colours of the terminal, which some libraries write into a file too.
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_ERROR_LINE = re.compile(r"\w+(?:Error|Exception)\b|\berror\b|\bERROR\b|panicked at|\bfailed\b")

# What an exit status alone tells: negative is the signal that killed it.
_BY_STATUS: Mapping[int, tuple[str, str, str]] = {
    -9: (
        "host_ram",
        "it was killed (signal 9), which is what the kernel does when RAM runs out",
        "`dmesg | grep -i 'out of memory'` tells whether it was. Free some RAM, or choose a smaller variant.",
    ),
    -4: (
        "build",
        "this CPU lacks an instruction that the engine was built for",
        "Install a build for this CPU.",
    ),
    -15: ("unknown", "something else stopped it (signal 15) before it was ready", "Start it again."),
}


def plain(log: str) -> str:
    """The log without colours."""
    return _COLOUR.sub("", log)


def cause(signs: Sequence[Sign], log: str, exit_status: int | None) -> Cause:
    """The cause of a failed start, as `Engine.diagnose` describes it. The first sign of the table that is seen."""
    lines = plain(log).splitlines()
    seen = first(signs, lines)
    if seen:
        after = [line for line in lines[seen.line + 1 : seen.line + 3] if _ERROR_LINE.search(line)]
        evidence = tuple(line.strip() for line in [lines[seen.line], *after])
        return Cause(seen.sign.code, seen.summary, seen.remedy, evidence)
    errors = [line.strip() for line in lines if _ERROR_LINE.search(line)]
    evidence = tuple(errors[-_LINES:] or [line.strip() for line in lines if line.strip()][-_LINES:])
    if exit_status is None:
        return Cause("unknown", "it was still loading", "Give it longer with --timeout.", evidence)
    if exit_status in _BY_STATUS:
        return Cause(*_BY_STATUS[exit_status], evidence)
    return Cause("unknown", "its log does not say why", "Read the whole log.", evidence)
