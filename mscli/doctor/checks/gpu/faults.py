"""What the kernel's log and the GPUs' own counters say of faults: Xid, fallen off the bus, memory errors."""

from __future__ import annotations

from collections.abc import Iterator

from mscli.diagnosis.causes import CAUSES
from mscli.doctor.checks.check import Seen, fail, ok, skipped, warn
from mscli.doctor.checks.context import CheckContext
from mscli.doctor.checks.gpu.health import health, lost
from mscli.doctor.checks.gpu.xid import OFF_BUS, xid_of
from mscli.doctor.checks.host.kernel_log import Line, ago, kernel_log
from mscli.inventory.health import Health

_ROW_SET_ASIDE = 63


def faults(ctx: CheckContext) -> Iterator[Seen]:
    """Xid and 'fallen off the bus' since the machine started. A GPU that is lost now is told of by gpu.readable."""
    log = kernel_log(ctx)
    if log.refused:
        yield skipped(f"the kernel's log cannot be read by this user ({log.refused})")
        return
    found = [line for line in log.lines if _whose(line) in ("gpu", "program")]
    hard = [line for line in found if _whose(line) == "gpu"]
    if lost(ctx):
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


def ecc(ctx: CheckContext) -> Iterator[Seen]:
    """Memory errors: NVML's counters, and the kernel's log for the Xids that go with them."""
    lines = [line for line in kernel_log(ctx).lines if _whose(line) == "memory"]
    shown = tuple(line.text for line in lines[-3:])
    told = [seen for one in health(ctx) if (seen := _judged(one, shown))]
    severe = [line for line in lines if line.recent and (xid_of(line.text) or (0,))[0] != _ROW_SET_ASIDE]
    yield from told
    if told:
        return
    if severe:
        yield fail("ecc", _told(severe), CAUSES["ecc"][1], *shown)
    elif lines:
        yield warn("ecc", _told(lines), CAUSES["ecc"][1], *shown)
    elif any(one.uncorrected is not None or one.repair_pending is not None for one in health(ctx)):
        ever = sum(one.uncorrected_ever or 0 for one in health(ctx))
        yield ok("no uncorrected memory error" + (f" since the driver was loaded ({ever} in all)" if ever else ""))
    else:
        told_by = "" if kernel_log(ctx).refused else ", and the kernel's log has none"
        yield ok(f"the GPUs count no memory errors (no ECC){told_by}")


def _judged(one: Health, shown: tuple[str, ...]) -> Seen | None:
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
