"""Processes of ours that outlived their instance and may still hold GPU memory."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from mscli.doctor.fix import Chore, Fix, Found, Listener
from mscli.doctor.live.scene import Scene
from mscli.engines.table import engine as engine_named
from mscli.errors import Code, MscliError
from mscli.inventory.inventory import Gpu, Inventory, MigInstance
from mscli.lifecycle.marked import Marked, end, marked, session_of
from mscli.lifecycle.process import alive, describe
from mscli.lifecycle.records import Record, Records
from mscli.lifecycle.shelf import Unreadable

# Where no record tells the engine: what every one of them understands.
_SIGNALS: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)
_GRACE_S = 10.0
MIB = 2**20


@dataclass(frozen=True)
class _Pack:
    """The processes of one instance that has ended, or that nobody remembers (`record` None)."""

    name: str
    mark: str
    record: Record | None
    processes: tuple[Marked, ...]


def look_at_orphans(scene: Scene) -> Found:
    """A fix for each instance with processes that outlived it; chores for those whose record cannot be read."""
    records = Records(scene.places)
    packs = list(_packs(records))
    if packs:
        with records.lock():  # a start holds it from its spawn until its record is written
            packs = list(_packs(records))
    unknown = {item.name: item for item in records.all()[1]}
    holds = _gpu_memory(scene.inventory) if packs else {}
    fixes = [_fix(pack, records, holds) for pack in packs if pack.name not in unknown]
    chores = [_unknown(pack, unknown[pack.name]) for pack in packs if pack.name in unknown]
    return fixes, chores


def busy_names(scene: Scene) -> frozenset[str]:
    """The instances for which a process of ours still lives."""
    return frozenset(each.name for each in marked(scene.places.instances))


def _packs(records: Records) -> Iterator[_Pack]:
    known, found = records.all()[0], marked(records.folder)
    for record in known:
        if (own := _outliving(record, found)) or (record.stopped_at is not None and (own := _of(record.mark, found))):
            yield _Pack(record.name, record.mark, record, own)
    marks = {record.mark for record in known}
    for mark in sorted({each.mark for each in found} - marks):
        own = _of(mark, found)
        yield _Pack(own[0].name, mark, None, own)


def _outliving(record: Record, found: tuple[Marked, ...]) -> tuple[Marked, ...]:
    """What lives of an instance whose leader has died; nothing while the leader lives."""
    if record.identity is None or alive(record.identity):
        return ()
    own = {each.who.pid: each for each in (*session_of(record), *_of(record.mark, found))}
    return tuple(own[pid] for pid in sorted(own))


def _of(mark: str, found: tuple[Marked, ...]) -> tuple[Marked, ...]:
    return tuple(each for each in found if each.mark == mark)


def _fix(pack: _Pack, records: Records, holds: Mapping[int, int | None]) -> Fix:
    pids = [each.who.pid for each in pack.processes]
    many = f"{len(pids)} processes" if len(pids) > 1 else "1 process"
    state = "which has ended" if pack.record else "which no record knows any more"
    return Fix(
        id=f"orphans:{pack.mark}",
        area="instances",
        what=f"end {many} of the instance {pack.name}, {state}",
        touches=tuple(f"pid {pid}" for pid in pids),
        apply=lambda listener: _end(pack, records, listener),
        shows=tuple(_line(each, holds) for each in pack.processes),
        finding="instances.orphans" if pack.record else "instances.unrecorded",
        ends_processes=True,
        instead_of=(f"mscli down {pack.name}", f"kill {' '.join(map(str, pids))}"),
    )


def _line(each: Marked, holds: Mapping[int, int | None]) -> str:
    pid = each.who.pid
    memory = "no GPU memory"
    if pid in holds:
        held = holds[pid]
        memory = "GPU memory of unknown size" if held is None else f"{held / MIB:,.0f} MiB of GPU memory"
    return f"{describe(pid)}: {memory}; {each.proof}"


def _gpu_memory(inventory: Inventory) -> dict[int, int | None]:
    """What each process holds over all GPUs, by NVML; None where the driver does not tell."""
    parts: list[Gpu | MigInstance] = [*inventory.gpus]
    parts += [part for gpu in inventory.gpus for part in gpu.mig.instances]
    holds: dict[int, int | None] = {}
    for holder in (holder for part in parts for holder in part.holders):
        before = holds.get(holder.pid, 0)
        holds[holder.pid] = None if before is None or holder.used_bytes is None else before + holder.used_bytes
    return holds


def _end(pack: _Pack, records: Records, listener: Listener) -> str:
    """End what still lives of the pack, and note that the instance is stopped. Raises STOP_FAILED for survivors."""
    find, signals, grace_s = _finder(pack, records), _SIGNALS, _GRACE_S
    if pack.record:
        engine = engine_named(pack.record.plan.engine)
        signals, grace_s = engine.stop_signals, engine.stop_grace_s
    if not find():
        raise MscliError(Code.NOT_RUNNING, "nothing of it lives any more, or it is in use after all")
    if left := end(find, signals, grace_s, listener):
        raise MscliError(
            Code.STOP_FAILED,
            f"still alive after SIGKILL: {'; '.join(describe(each.who.pid) for each in left)}",
            "A process in uninterruptible sleep waits for the driver or a disk: see dmesg. It may need a restart.",
        )
    _note_end(pack, records)
    return f"{len(pack.processes)} ended"


def _finder(pack: _Pack, records: Records) -> Callable[[], tuple[Marked, ...]]:
    """Looks for what lives of the pack, and finds nothing once its instance is seen to be in use after all."""

    def find() -> tuple[Marked, ...]:
        found = marked(records.folder)
        with records.lock():
            now = records.load(pack.name)
        if isinstance(now, Record) and now.mark == pack.mark:
            return _outliving(now, found) or (_of(pack.mark, found) if now.stopped_at is not None else ())
        return () if isinstance(now, Unreadable) else _of(pack.mark, found)

    return find


def _note_end(pack: _Pack, records: Records) -> None:
    with records.lock():
        now = records.load(pack.name)
        if isinstance(now, Record) and now.mark == pack.mark and not (now.identity and alive(now.identity)):
            records.save(replace(now, stopped_at=now.stopped_at or time.time()))
            records.tidy(pack.name)
        elif now is None:
            records.tidy(pack.name)


def _unknown(pack: _Pack, damaged: Unreadable) -> Chore:
    pids = ", ".join(str(each.who.pid) for each in pack.processes)
    why = (
        f"processes of the instance {pack.name} live (pid {pids}), and its record cannot be read ({damaged.reason}): "
        "whether they are in use is not known"
    )
    return Chore("instances", why, f"ps -fp {','.join(str(each.who.pid) for each in pack.processes)}")
