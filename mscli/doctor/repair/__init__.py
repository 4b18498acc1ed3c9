"""What `mscli doctor --fix` may change: records, processes and profiles of our own, each shown before it is changed.

Never drivers, services, others' processes or bytes that were paid for with time: those become manual steps.
"""

from __future__ import annotations

import shlex
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from mscli.doctor.checks.check import AREAS, CheckContext, counted
from mscli.doctor.checks.instances.own_files import OWNER, Unsafe, close, unsafe_files
from mscli.doctor.repair.fix import Fix, Listener, ManualStep, Outcome, Repairs
from mscli.doctor.repair.profiles import broken_profiles
from mscli.engines.table import engine as engine_named
from mscli.errors import Code, MscliError
from mscli.frozen import replace
from mscli.instances.fetching import fetching
from mscli.instances.orphans import Leftover, Marked, end, leftovers, marked, still
from mscli.instances.process import boot_id, describe, stat
from mscli.instances.records import Record, Records, group, running
from mscli.instances.store import Unreadable
from mscli.inventory.inventory import Inventory, total_bytes
from mscli.lifecycle.pinned import catalogue
from mscli.paths import hub_cache
from mscli.planning.plan import gib
from mscli.weights.cache import cache, holder
from mscli.weights.stored import Stored, on_disk


def look(ctx: CheckContext, areas: Iterable[str] = AREAS) -> Repairs:
    """What can be mended in these areas, in the order in which to do it, and what is left to the user.

    Reads files, /proc and NVML; changes nothing.
    """
    looks = {"instances": (orphans, dead_records), "profile": (broken_profiles,), "weights": (unfinished_downloads,)}
    wanted = set(areas)
    found = [one(ctx) for area, own in looks.items() if area in wanted for one in own]
    return [fix for fixes, _ in found for fix in fixes], [step for _, steps in found for step in steps]


def carry_out(fix: Fix, listener: Listener = lambda _: None) -> Outcome:
    """Do it. What keeps it from being done is its result, never an error: one fix must not keep others from theirs."""
    try:
        return Outcome(fix, True, fix.apply(listener))
    except MscliError as fault:
        return Outcome(fix, False, f"{fault.message}. {fault.hint}".removesuffix(". "))
    except OSError as fault:
        return Outcome(fix, False, f"{fault.strerror or fault}: {fault.filename}" if fault.filename else str(fault))


def unfinished_downloads(ctx: CheckContext) -> Repairs:
    """A manual step for each download that was broken off and that no process goes on with; its bytes are kept."""
    try:
        catalog = catalogue(ctx.places)
        stored = on_disk(catalog.profiles.values(), catalog.models, hub_cache(ctx.env))
    except (MscliError, OSError):
        return [], []  # the area `weights` says what is wrong with the folder
    return [], [_resume(item) for item in stored if item.unfinished and not _in_work(item, ctx)]


def _in_work(item: Stored, ctx: CheckContext) -> bool:
    place = cache(hub_cache(ctx.env))
    locks = place.root / ".locks" / place.repository(item.repository).name
    return any(holder(locks / f"{path.name.split('.')[0]}.lock") for path in item.unfinished)


def _resume(item: Stored) -> ManualStep:
    size = f"unfinished download of {item.repository} ({gib(item.unfinished_bytes)} kept)"
    if item.profiles:
        return ManualStep(
            "weights", f"{size}; resume it, or delete it with `mscli weights prune`", f"mscli pull {item.profiles[0]}"
        )
    return ManualStep("weights", f"{size}; not needed by any profile", "mscli weights prune")


# Where no record tells the engine: what every one of them understands.
_SIGNALS: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)
_GRACE_S = 10.0
MIB = 2**20


def orphans(ctx: CheckContext) -> Repairs:
    """A fix for each instance with processes that outlived it; manual steps for those whose record cannot be read.

    What a container left behind is neither: its engine ends it best, by the command of the check's finding.
    """
    records = Records(ctx.places)
    unsafe_files(ctx)  # seen before the lock is taken, which closes the folder of records
    found = [each for each in leftovers(records) if not each.container]
    fixes = [_fix(each, records, ctx.inventory) for each in found if not each.damaged]
    return fixes, [_unknown(each, each.damaged) for each in found if each.damaged]


def busy_names(ctx: CheckContext) -> frozenset[str]:
    """The instances for which a process of ours still lives."""
    return frozenset(each.name for each in marked(ctx.places.instances))


def _fix(leftover: Leftover, records: Records, inventory: Inventory) -> Fix:
    pids = [each.who.pid for each in leftover.processes]
    state = "ended" if leftover.record else "no record"
    return Fix(
        id=f"orphans:{leftover.mark}",
        area="instances",
        what=f"stop {counted(len(pids), 'process', 'processes')} left by instance {leftover.name} ({state})",
        touches=tuple(f"PID {pid}" for pid in pids),
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
        memory = "GPU memory (size unknown)" if held is None else f"{held / MIB:,.0f} MiB of GPU memory"
    return f"{describe(pid)}: {memory}; {each.proof}"


def _end(leftover: Leftover, records: Records, listener: Listener) -> str:
    """End what still lives of it, and note that the instance is stopped. Raises STOP_FAILED for survivors."""
    signals, grace_s = _SIGNALS, _GRACE_S
    if leftover.record:
        engine = engine_named(leftover.record.plan.engine)
        signals, grace_s = engine.stop_signals, engine.stop_grace_s
    if not still(leftover, records):
        raise MscliError(Code.NOT_RUNNING, "nothing left to stop, or it is in use again")
    if left := end(lambda: still(leftover, records), signals, grace_s, listener):
        raise MscliError(
            Code.STOP_FAILED,
            f"still alive after SIGKILL: {'; '.join(describe(each.who.pid) for each in left)}",
            "It waits for the driver or a disk (uninterruptible sleep): see dmesg; a restart may be needed.",
        )
    _note_end(leftover, records)
    return f"{len(leftover.processes)} stopped"


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
    why = f"instance {leftover.name} has processes (PID {', '.join(pids)}), but no readable record ({damaged.reason})"
    return ManualStep("instances", why, f"ps -fp {','.join(pids)}")


def dead_records(ctx: CheckContext) -> Repairs:
    """Fixes for dead records and for leftovers; a manual step for each unreadable record."""
    records, busy = Records(ctx.places), busy_names(ctx)
    good, broken = records.all()
    dead = [record for record in good if _dead(record) and record.name not in busy]
    gone = [record.name for record in good if record.stopped_at is not None]
    idle = [*gone, *_without_record(records)]
    fixes = [_tidy_dead(record, records) for record in dead]
    fixes += [
        _tidy_leftovers(name, left, records) for name in idle if name not in busy if (left := _left(records, name))
    ]
    fixes += [_close(each) for each in unsafe_files(ctx) if each.problem != OWNER]
    return fixes, [_move_away(item) for item in broken]


def _dead(record: Record) -> bool:
    """True for an instance of ours of which nothing lives, though nobody has stopped it."""
    return record.stopped_at is None and record.identity is not None and not running(record)


def _tidy_dead(record: Record, records: Records) -> Fix:
    assert record.identity is not None
    how = "crashed" if record.identity.boot_id == boot_id() else "ended at the last shutdown"
    return Fix(
        id=f"record:{record.name}",
        area="instances",
        what=f"mark instance {record.name} as stopped ({how}); keeps its log and settings",
        touches=(str(records.run_dir(record.name) / "record.json"),),
        apply=lambda _: _note_dead(record, records),
        finding="instances.state",
        instead_of=(f"mscli down {record.name}",),
    )


def _note_dead(record: Record, records: Records) -> str:
    with records.lock():
        now = records.load(record.name)
        if not isinstance(now, Record) or now.mark != record.mark or not _dead(now) or group(now):
            raise MscliError(Code.FILE, f"{record.name} changed meanwhile", "Run mscli doctor --fix again.")
        records.save(replace(now, stopped_at=time.time()))
        records.tidy(record.name)
    return f"marked as stopped (see mscli logs {record.name}, mscli restart {record.name})"


def _without_record(records: Records) -> Iterator[str]:
    """Instance folders without a record: starts that failed keep their log in one."""
    recorded = records.names()
    for folder in records.folders():
        if not folder.is_symlink() and folder.name not in recorded and not fetching(records, folder.name):
            yield folder.name


def _left(records: Records, name: str) -> tuple[Path, ...]:
    """What a stopped instance should not have left: temporary files and sockets, and files written only by half."""
    folder = records.run_dir(name)
    halves = [path for path in folder.glob(".*.*") if _half_written(path)]
    return tuple(
        path
        for path in (folder / "tmp", folder / "ready", folder / "stopping", *halves)
        if path.exists() or path.is_symlink()
    )


def _half_written(path: Path) -> bool:
    """True for a file of `write_private` (.NAME.PID) whose writer has died before it was whole."""
    pid = path.name.rpartition(".")[2]
    return pid.isdigit() and path.is_file() and stat(int(pid)) is None


def _tidy_leftovers(name: str, left: tuple[Path, ...], records: Records) -> Fix:
    words = ", ".join(sorted(path.name for path in left))
    return Fix(
        id=f"leftovers:{name}",
        area="instances",
        what=f"remove leftovers of stopped instance {name}: {words}",
        touches=tuple(map(str, left)),
        apply=lambda _: _remove_leftovers(name, records),
        finding="instances.leftovers",
        instead_of=(f"mscli down {name}",),
    )


def _remove_leftovers(name: str, records: Records) -> str:
    with records.lock():  # a start holds it from the making of the folder until its record is written
        now = records.load(name)
        if isinstance(now, Unreadable) or (isinstance(now, Record) and running(now)):
            raise MscliError(Code.FILE, f"{name} changed meanwhile", "Run mscli doctor --fix again.")
        left = _left(records, name)
        for path in left:
            if path.name.startswith("."):
                path.unlink(missing_ok=True)
        records.tidy(name)
        still = [path for path in left if path.exists()]
    if still:
        raise MscliError(Code.FILE, f"cannot remove {still[0]}", "Check the permissions of its folder.")
    return f"{len(left)} removed"


def _close(each: Unsafe) -> Fix:
    return Fix(
        id=f"rights:{each.id}",
        area="instances",
        what=f"make {each.what} private ({each.mode:o})",
        touches=(str(each.path),),
        apply=lambda _: _closed(each),
        shows=(each.shown,),
        finding="instances.folders",
        instead_of=(f"chmod {each.mode:o} {shlex.quote(str(each.path))}",),
    )


def _closed(each: Unsafe) -> str:
    close(each.path, each.mode)
    return f"mode is now {each.mode:o}"


def _move_away(item: Unreadable) -> ManualStep:
    kept = item.path.with_name(f"{item.path.name}.damaged")
    return ManualStep(
        "instances",
        f"cannot read the record of {item.name!r} ({item.reason}); move it away if you do not need it",
        f"mv {shlex.quote(str(item.path))} {shlex.quote(str(kept))}",
    )
