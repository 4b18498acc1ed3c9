"""Why Ollama did not start, did not load, or computes on the CPU: its log and its words, read by mechanism.

The last line seldom says it: "unable to load model", "llama runner process has terminated" and the CPU itself are what
follows. What an Ollama since 0.30 passes on from llama-server's log is recognised by that engine's signs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from mscli.diagnosis.signature import first
from mscli.engines.engine import Cause
from mscli.engines.llamacpp import causes as llamacpp_causes
from mscli.engines.ollama.signs import GPU_HELD, SIGNS

_ERROR_LINE = re.compile(r"level=ERROR|\berror\b|\bfailed\b", re.IGNORECASE)
_DISCOVERED = re.compile(r"inference compute.*?total=\"?([\d.]+) (\wi?B)\"?.*?available=\"?([\d.]+) (\wi?B)")
_UNITS: Mapping[str, int] = {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "B": 1}


def cause(log: str, exit_status: int | None) -> Cause:
    """The cause of a failed or slow start, as `Engine.diagnose` describes it; also of what the server answered."""
    lines = log.splitlines()
    if seen := first(SIGNS, lines):
        found = Cause(seen.sign.code, seen.summary, seen.remedy, _around(lines, seen.line))
        return _busy(lines, found) if seen.sign.code == "cpu_fallback" else found
    return llamacpp_causes.cause(log, exit_status)


def _around(lines: list[str], number: int) -> tuple[str, ...]:
    """The telling line, and the errors just after it."""
    after = [line for line in lines[number + 1 : number + 4] if _ERROR_LINE.search(line)]
    return tuple(line.strip() for line in [lines[number], *after])


def _busy(lines: list[str], fallen: Cause) -> Cause:
    """Where a GPU was more than half full before the model came, that is why it fell to the CPU."""
    for line in lines:
        if (seen := _DISCOVERED.search(line)) and "library=cpu" not in line:
            total, free = float(seen[1]) * _UNITS[seen[2]], float(seen[3]) * _UNITS[seen[4]]
            if free < total / 2:
                summary = f"{fallen.summary}: only {seen[3]} {seen[4]} of {seen[1]} {seen[2]} were free on a GPU"
                return Cause("gpu_busy", summary, GPU_HELD, (line.strip(), *fallen.evidence))
    return fallen
