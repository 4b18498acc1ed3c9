"""Faults of GPUs, from the kernel's log and their own counters: Xid, fallen off the bus, memory errors.

Source of the Xid numbers: NVIDIA, "Xid Errors" (the catalogue in the GPU deployment and management documents), as far
as they tell a model's user what to do.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from mscli.doctor.checks.check import Finding, fail, ok, skipped, warn
from mscli.doctor.checks.context import CheckContext
from mscli.doctor.checks.host import Line, ago, kernel_log
from mscli.frozen import frozen
from mscli.inventory.health import Health

_ROW_SET_ASIDE = 63


def faults(ctx: CheckContext) -> Iterator[Finding]:
    """Xid and 'fallen off the bus' since the machine started. A GPU that is lost now is told of by gpu.readable."""
    log = kernel_log(ctx)
    if log.refused:
        yield skipped(f"cannot read the kernel log ({log.refused})")
        return
    found = [line for line in log.lines if _whose(line) in ("gpu", "program")]
    hard = [line for line in found if _whose(line) == "gpu"]
    if ctx.lost_gpus:
        yield skipped("a GPU is lost (see gpu.readable)")
    elif recent := [line for line in hard if line.recent]:
        yield fail("xid", _told(recent), None, *(line.text for line in recent[-5:]))
    elif hard:
        yield warn("xid", _told(hard), None, *(line.text for line in hard[-5:]))
    elif recent := [line for line in found if line.recent]:
        remedy = "Usually a bug in a program; if several programs are affected, test the GPU:"
        yield warn("xid", _told(recent), remedy, *(line.text for line in recent[-5:]), command="dcgmi diag -r 3")
    else:
        yield ok(f"no GPU faults in the kernel log ({log.source})")


def _whose(line: Line) -> str | None:
    if told := xid_of(line.text):
        return told[1].whose
    return "gpu" if OFF_BUS.search(line.text) else None


def _told(lines: list[Line]) -> str:
    """The last one in words, and how many there were."""
    last = lines[-1]
    told = xid_of(last.text)
    what = f"Xid {told[0]}, {told[1].meaning}" if told else "a GPU fell off the bus or did not start"
    more = f" ({len(lines)} entries)" if len(lines) > 1 else ""
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
        yield fail("ecc", _told(severe), None, *shown)
    elif lines:
        yield warn("ecc", _told(lines), None, *shown)
    elif any(one.uncorrected is not None or one.repair_pending is not None for one in ctx.health):
        ever = sum(one.uncorrected_ever or 0 for one in ctx.health)
        yield ok("no uncorrected memory errors" + (f" since the driver was loaded ({ever} in total)" if ever else ""))
    else:
        log = "" if kernel_log(ctx).refused else ", none in the kernel log"
        yield ok(f"no ECC memory error counters{log}")


def _judged(one: Health, shown: tuple[str, ...]) -> Finding | None:
    reset = f"sudo nvidia-smi --gpu-reset -i {one.index}"
    if one.repair_failed:
        seen = f"GPU {one.index}: row remapping failed (no spare memory left)"
        return fail("ecc", seen, "Replace the GPU.", *shown)
    if one.uncorrected:
        seen = f"GPU {one.index}: {one.uncorrected} uncorrected memory errors since the driver was loaded"
        return fail("ecc", seen, None, *shown, command=reset)
    if one.repair_pending:
        remedy = "Stop what uses it, then reset it:"
        return warn("ecc", f"GPU {one.index}: row remapping pending until a reset", remedy, *shown, command=reset)
    return None


# "NVRM: Xid (PCI:0000:b3:00): 79, pid=1234, GPU has fallen off the bus."
XID = re.compile(r"NVRM: Xid \(([^)]*)\): (\d+)")
# Without any Xid: three lines of NVRM, of which the last says so.
OFF_BUS = re.compile(r"fallen off\s+the\s+bus|RmInitAdapter failed|rm_init_adapter failed")
# Xid 154 is also written when a GPU needs nothing (any more).
NO_ACTION = re.compile(r"\): 154,.*\(None\)")


@frozen
class Xid:
    """`whose`: program (a program did it, the GPU is well), memory (ECC), gpu (hardware or driver)."""

    meaning: str
    whose: str


UNKNOWN = Xid("see NVIDIA's Xid documentation", "gpu")


@cache
def xids() -> Mapping[int, Xid]:
    """The table of xid.csv."""
    with Path(__file__).with_name("xid.csv").open(newline="") as file:
        return {int(row["number"]): Xid(row["meaning"], row["whose"]) for row in csv.DictReader(file)}


def xid_of(text: str) -> tuple[int, Xid] | None:
    """The Xid in a line of the kernel's log."""
    found = XID.search(text)
    if found is None or NO_ACTION.search(text):
        return None
    number = int(found[2])
    return number, xids().get(number, UNKNOWN)
