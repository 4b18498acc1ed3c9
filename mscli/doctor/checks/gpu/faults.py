"""Faults of GPUs, from the kernel's log and their own counters: Xid, fallen off the bus, memory errors.

Source of the Xid numbers: NVIDIA, "Xid Errors" (the catalogue in the GPU deployment and management documents), as far
as they tell a model's user what to do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mscli.diagnosis.causes import CAUSES
from mscli.doctor.checks.check import Finding, fail, ok, skipped, warn
from mscli.doctor.checks.context import CheckContext
from mscli.doctor.checks.host import Line, ago, kernel_log
from mscli.inventory.health import Health

_ROW_SET_ASIDE = 63


def faults(ctx: CheckContext) -> Iterator[Finding]:
    """Xid and 'fallen off the bus' since the machine started. A GPU that is lost now is told of by gpu.readable."""
    log = kernel_log(ctx)
    if log.refused:
        yield skipped(f"the kernel's log cannot be read by this user ({log.refused})")
        return
    found = [line for line in log.lines if _whose(line) in ("gpu", "program")]
    hard = [line for line in found if _whose(line) == "gpu"]
    if ctx.lost_gpus:
        yield skipped("a GPU is lost, and what the kernel says of it is told with that (see gpu.readable)")
    elif recent := [line for line in hard if line.recent]:
        yield fail("xid", _told(recent), CAUSES["xid"][1], *(line.text for line in recent[-5:]))
    elif hard:
        yield warn("xid", _told(hard), CAUSES["xid"][1], *(line.text for line in hard[-5:]))
    elif recent := [line for line in found if line.recent]:
        remedy = "A program did this, not the GPU; if it comes back with others too, run `dcgmi diag` or memtest."
        yield warn("xid", _told(recent), remedy, *(line.text for line in recent[-5:]))
    else:
        yield ok(f"no fault of a GPU in the kernel's log ({log.source})")


def _whose(line: Line) -> str | None:
    if told := xid_of(line.text):
        return told[1].whose
    return "gpu" if OFF_BUS.search(line.text) else None


def _told(lines: list[Line]) -> str:
    """The last one in words, and how many there were."""
    last = lines[-1]
    told = xid_of(last.text)
    what = f"Xid {told[0]}, {told[1].meaning}" if told else "a GPU fell off the bus or could not be started"
    more = f" ({len(lines)} such lines)" if len(lines) > 1 else ""
    return f"{what}, {ago(last)}{more}"


def ecc(ctx: CheckContext) -> Iterator[Finding]:
    """Memory errors: NVML's counters, and the kernel's log for the Xids that go with them."""
    lines = [line for line in kernel_log(ctx).lines if _whose(line) == "memory"]
    shown = tuple(line.text for line in lines[-3:])
    told = [seen for one in ctx.health if (seen := _judged(one, shown))]
    severe = [line for line in lines if line.recent and (xid_of(line.text) or (0,))[0] != _ROW_SET_ASIDE]
    yield from told
    if told:
        return
    if severe:
        yield fail("ecc", _told(severe), CAUSES["ecc"][1], *shown)
    elif lines:
        yield warn("ecc", _told(lines), CAUSES["ecc"][1], *shown)
    elif any(one.uncorrected is not None or one.repair_pending is not None for one in ctx.health):
        ever = sum(one.uncorrected_ever or 0 for one in ctx.health)
        yield ok("no uncorrected memory error" + (f" since the driver was loaded ({ever} in all)" if ever else ""))
    else:
        told_by = "" if kernel_log(ctx).refused else ", and the kernel's log has none"
        yield ok(f"the GPUs count no memory errors (no ECC){told_by}")


def _judged(one: Health, shown: tuple[str, ...]) -> Finding | None:
    reset = f"sudo nvidia-smi --gpu-reset -i {one.index}"
    if one.repair_failed:
        seen = f"GPU {one.index} has no spare memory left to repair its errors"
        return fail("ecc", seen, "Have it replaced.", *shown)
    if one.uncorrected:
        seen = f"GPU {one.index} has {one.uncorrected} uncorrected memory errors since its driver was loaded"
        return fail("ecc", seen, CAUSES["ecc"][1], *shown, command=reset)
    if one.repair_pending:
        remedy = "Stop what uses it and reset it: the bad memory is set aside then."
        return warn("ecc", f"GPU {one.index} waits for a reset to set bad memory aside", remedy, *shown, command=reset)
    return None


# "NVRM: Xid (PCI:0000:b3:00): 79, pid=1234, GPU has fallen off the bus."
XID = re.compile(r"NVRM: Xid \(([^)]*)\): (\d+)")
# Without any Xid: three lines of NVRM, of which the last says so.
OFF_BUS = re.compile(r"fallen off\s+the\s+bus|RmInitAdapter failed|rm_init_adapter failed")
# Xid 154 is also written when a GPU needs nothing (any more).
NO_ACTION = re.compile(r"\): 154,.*\(None\)")


@dataclass(frozen=True)
class Xid:
    """`whose`: program (a program did it, the GPU is well), memory (ECC), gpu (hardware or driver)."""

    meaning: str
    whose: str


XIDS: Mapping[int, Xid] = {
    13: Xid("graphics engine exception: a program's invalid access, seldom hardware", "program"),
    31: Xid("memory page fault: a program's invalid address, seldom hardware", "program"),
    32: Xid("invalid push buffer stream: bus or program", "gpu"),
    38: Xid("driver firmware error", "gpu"),
    43: Xid("a program stopped because of its own fault", "program"),
    45: Xid("a program's work was cleared away, after an earlier error or a kill", "program"),
    48: Xid("double bit ECC error, which cannot be corrected", "memory"),
    61: Xid("internal micro-controller warning", "gpu"),
    62: Xid("internal micro-controller halt", "gpu"),
    63: Xid("a memory row or page was set aside for good", "memory"),
    64: Xid("a memory row or page could not be set aside", "memory"),
    68: Xid("video decoder exception", "program"),
    69: Xid("graphics engine class error", "program"),
    74: Xid("NVLink error", "gpu"),
    79: Xid("the GPU has fallen off the bus", "gpu"),
    92: Xid("many corrected memory errors", "memory"),
    94: Xid("contained memory error: the program that met it was stopped", "memory"),
    95: Xid("uncontained memory error: the GPU must be reset", "memory"),
    109: Xid("a context switch took too long", "gpu"),
    119: Xid("the GPU's system processor (GSP) does not answer", "gpu"),
    120: Xid("the GPU's system processor (GSP) met an error", "gpu"),
    140: Xid("ECC error that was not recovered", "memory"),
    143: Xid("the GPU could not be initialised", "gpu"),
    154: Xid("the GPU needs a reset or a restart", "gpu"),
}
UNKNOWN = Xid("not in mscli's list; NVIDIA's Xid catalogue has it", "gpu")


def xid_of(text: str) -> tuple[int, Xid] | None:
    """The Xid in a line of the kernel's log."""
    found = XID.search(text)
    if found is None or NO_ACTION.search(text):
        return None
    number = int(found[2])
    return number, XIDS.get(number, UNKNOWN)
