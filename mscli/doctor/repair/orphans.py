"""Processes of ours that outlived their instance and may still hold GPU memory."""

from __future__ import annotations

import signal
import time
from dataclasses import replace

from mscli.doctor.checks.context import CheckContext
from mscli.doctor.repair.repairs import Fix, Found, Listener, ManualStep
from mscli.engines.table import engine as engine_named
from mscli.errors import Code, MscliError
from mscli.instances.orphans import Leftover, Marked, end, leftovers, marked, still
from mscli.instances.process import describe
from mscli.instances.records import Record, Records, running
from mscli.instances.store import Unreadable
from mscli.inventory.inventory import Inventory, total_bytes

# Where no record tells the engine: what every one of them understands.
_SIGNALS: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)
_GRACE_S = 10.0
MIB = 2**20


def look_at_orphans(ctx: CheckContext) -> Found:
    """A fix for each instance with processes that outlived it; manual steps for those whose record cannot be read.

    What a container left behind is neither: its engine ends it best, by the command of the check's finding.
    """
    records = Records(ctx.places)
    found = [each for each in leftovers(records) if not each.container]
    fixes = [_fix(each, records, ctx.inventory) for each in found if not each.damaged]
    return fixes, [_unknown(each, each.damaged) for each in found if each.damaged]


def busy_names(ctx: CheckContext) -> frozenset[str]:
    """The instances for which a process of ours still lives."""
    return frozenset(each.name for each in marked(ctx.places.instances))


def _fix(leftover: Leftover, records: Records, inventory: Inventory) -> Fix:
    pids = [each.who.pid for each in leftover.processes]
    many = f"{len(pids)} processes" if len(pids) > 1 else "1 process"
    state = "which has ended" if leftover.record else "which no record knows any more"
    return Fix(
        id=f"orphans:{leftover.mark}",
        area="instances",
        what=f"end {many} of the instance {leftover.name}, {state}",
        touches=tuple(f"pid {pid}" for pid in pids),
        apply=lambda listener: _end(leftover, records, listener),
        shows=tuple(_line(each, inventory) for each in leftover.processes),
        finding="instances.orphans" if leftover.record else "instances.unrecorded",
        ends_processes=True,
        instead_of=(f"mscli down {leftover.name}", f"kill {' '.join(map(str, pids))}"),
    )


def _line(each: Marked, inventory: Inventory) -> str:
    pid = each.who.pid
    memory = "no GPU memory"
    if holders := inventory.holders((pid,)):
        held = total_bytes(holders)
        memory = "GPU memory of unknown size" if held is None else f"{held / MIB:,.0f} MiB of GPU memory"
    return f"{describe(pid)}: {memory}; {each.proof}"


def _end(leftover: Leftover, records: Records, listener: Listener) -> str:
    """End what still lives of it, and note that the instance is stopped. Raises STOP_FAILED for survivors."""
    signals, grace_s = _SIGNALS, _GRACE_S
    if leftover.record:
        engine = engine_named(leftover.record.plan.engine)
        signals, grace_s = engine.stop_signals, engine.stop_grace_s
    if not still(leftover, records):
        raise MscliError(Code.NOT_RUNNING, "nothing of it lives any more, or it is in use after all")
    if left := end(lambda: still(leftover, records), signals, grace_s, listener):
        raise MscliError(
            Code.STOP_FAILED,
            f"still alive after SIGKILL: {'; '.join(describe(each.who.pid) for each in left)}",
            "A process in uninterruptible sleep waits for the driver or a disk: see dmesg. It may need a restart.",
        )
    _note_end(leftover, records)
    return f"{len(leftover.processes)} ended"


def _note_end(leftover: Leftover, records: Records) -> None:
    with records.lock():
        now = records.load(leftover.name)
        if isinstance(now, Record) and now.mark == leftover.mark and not running(now):
            records.save(replace(now, stopped_at=now.stopped_at or time.time()))
            records.tidy(leftover.name)
        elif now is None:
            records.tidy(leftover.name)


def _unknown(leftover: Leftover, damaged: Unreadable) -> ManualStep:
    pids = [str(each.who.pid) for each in leftover.processes]
    why = (
        f"processes of the instance {leftover.name} live (pid {', '.join(pids)}), and its record cannot be read "
        f"({damaged.reason}): whether they are in use is not known"
    )
    return ManualStep("instances", why, f"ps -fp {','.join(pids)}")
