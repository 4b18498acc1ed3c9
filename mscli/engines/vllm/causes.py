"""Why vLLM did not start: its log, read by mechanism, gives a code of the closed cause list."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mscli.diagnosis.signature import Seen, first
from mscli.engines.engine import Cause
from mscli.engines.vllm.signs import SIGNS

_UNKNOWN_LINES = 8
_ERROR_LINE = re.compile(r"\b(?:ERROR|CRITICAL)\b|\w+Error\b|\berror[:,]|\bfailed\b")
# What only says that there was an error, or where.
_WRAPPER = re.compile(
    r"Engine core initialization failed|WorkerProc|EngineCore failed|EngineDeadError|Failed core proc|RecvError"
    r"|CalledProcessError|exit status|See root cause above|Traceback|File \"|^\s*\^+\s*$|resource_tracker"
    r"|\bWARNING\b|ValidationError"
)
_ESTIMATE = re.compile(r"estimated maximum model length is (\d+)")
_ROOM = re.compile(r"available KV cache memory \(([\d.]+) GiB")
_BEFORE = re.compile(r"total_gpu_memory=([\d.]+)GiB initial_memory_usage=([\d.]+)GiB")
_FULL = 0.8

# What an exit status alone tells: negative is the signal that killed it.
_BY_STATUS: Mapping[int, tuple[str, str, str]] = {
    -9: (
        "host_ram",
        "it was killed (signal 9), which is what the kernel does when RAM runs out",
        "`dmesg | grep -i 'out of memory'` tells whether it was. Free some RAM, or ask for less: --ctx.",
    ),
    -4: (
        "build",
        "this CPU lacks an instruction that this vLLM was built for",
        "Install a vLLM that is built for this CPU; `mscli gpus` shows its flags.",
    ),
    -15: ("unknown", "something else stopped it (signal 15) before it was ready", "Start it again."),
}


def cause(log: str, exit_status: int | None) -> Cause:
    """The cause of a failed start, as `Engine.diagnose` describes it."""
    lines = log.splitlines()
    seen = first(SIGNS, lines)
    if seen is None:
        return _without_sign(lines, exit_status)
    found = Cause(seen.sign.code, seen.summary, seen.remedy, _around(lines, seen))
    return _with_room(_with_holder(found, log), log) if found.code == "oom_kv" else found


def _around(lines: Sequence[str], seen: Seen) -> tuple[str, ...]:
    """The telling line, and errors just after it that say more."""
    after = lines[seen.line + 1 : seen.line + 3]
    more = [line for line in after if _ERROR_LINE.search(line) and not _WRAPPER.search(line)]
    return tuple(line.strip() for line in [lines[seen.line], *more])


def _with_room(found: Cause, log: str) -> Cause:
    """The longest context that would have fitted, where vLLM tells it."""
    estimate, room = _ESTIMATE.search(log), _ROOM.search(log)
    if found.code != "oom_kv" or estimate is None:
        return found
    summary = f"{found.summary}; {room[1]} GiB hold {estimate[1]}" if room else found.summary
    return replace(found, summary=summary, remedy=f"Ask for at most that: --ctx {estimate[1]}. {found.remedy}")


def _with_holder(found: Cause, log: str) -> Cause:
    """Where a GPU was nearly full before anything was loaded, somebody else holds it."""
    before = _BEFORE.search(log)
    if before is None or "weights took" in log or float(before[2]) < _FULL * float(before[1]):
        return found
    return replace(
        found,
        code="gpu_busy",
        summary=f"{before[2]} of {before[1]} GiB of GPU memory were in use before the KV cache was made",
        remedy="See who holds GPU memory: `mscli gpus`. Stop it, or plan anew with what is free.",
    )


def _without_sign(lines: Sequence[str], exit_status: int | None) -> Cause:
    errors = [line.strip() for line in lines if _ERROR_LINE.search(line) and not _WRAPPER.search(line)]
    evidence = tuple(errors[:_UNKNOWN_LINES] or [line.strip() for line in lines if line.strip()][-_UNKNOWN_LINES:])
    if exit_status is None:
        return Cause("unknown", "it was still loading", "Give it longer with --timeout.", evidence)
    if exit_status in _BY_STATUS:
        return Cause(*_BY_STATUS[exit_status], evidence)
    return Cause("unknown", "its log does not say why", "Read the whole log.", evidence)
