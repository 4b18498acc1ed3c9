"""What instances leave behind: processes that live on and hold GPU memory, containers, what has no record, sockets."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from mscli.doctor.checks.check import Seen, fail, ok, skipped, warn
from mscli.doctor.checks.context import CheckContext
from mscli.doctor.checks.instances.state import watched
from mscli.errors import MscliError
from mscli.instances import state as instance
from mscli.instances.orphans import Leftover, leftovers
from mscli.instances.process import describe
from mscli.instances.records import Records, group
from mscli.inventory.inventory import total_bytes
from mscli.planning.figures import gib

_LOCK_S = 1.0


def orphans(ctx: CheckContext) -> Iterator[Seen]:
    """Processes of an instance that outlived its server, with the GPU memory that they hold, and its container."""
    found = _found(ctx)
    if isinstance(found, str):
        yield skipped(found)
        return
    ended = [(each, each.record) for each in found if each.record]
    for leftover, record in ended:
        held = total_bytes(ctx.inventory.holders(leftover.pids))
        yield fail(
            "gpu_busy" if held or (held is None and record.plan.devices) else None,
            f"{_outlived(leftover)}{_holding(held, record.plan.gpus)}",
            "It goes on without its client, and nobody looks after it: end it."
            if leftover.container
            else "They are ours and serve nobody: stop them.",
            *(describe(pid) for pid in leftover.pids),
            command=f"mscli down {record.name}",
        )
    if not ended:
        yield ok("no process has outlived its instance")


def unrecorded(ctx: CheckContext) -> Iterator[Seen]:
    """Processes of ours whose record is gone: nothing else would ever find or stop them."""
    found = _found(ctx)
    if isinstance(found, str):
        yield skipped(found)
        return
    lost = [each for each in found if not each.record and not each.damaged]
    for leftover in lost:
        held = total_bytes(ctx.inventory.holders(leftover.pids))
        yield fail(
            "gpu_busy" if held else None,
            f"{_many(leftover)} of an instance {leftover.name}, whose record is gone, live on{_holding(held, ())}",
            "mscli no longer knows them: look at them, and stop them by hand.",
            *(describe(pid) for pid in leftover.pids),
            command=f"kill {' '.join(map(str, leftover.pids))}",
        )
    if not lost:
        yield ok("every process that mscli started has its record")


def _found(ctx: CheckContext) -> tuple[Leftover, ...] | str:
    """What is left, or why that cannot be told."""

    def look() -> tuple[Leftover, ...] | str:
        try:
            return leftovers(Records(ctx.places), _LOCK_S)
        except MscliError as fault:
            return fault.message
        except OSError as fault:
            return f"{fault.filename}: {fault.strerror}"

    return ctx.once("leftovers", look)


def _outlived(leftover: Leftover) -> str:
    if leftover.container:
        return f"the container {leftover.container} of {leftover.name} has outlived its client"
    return f"{_many(leftover)} of {leftover.name} outlived the server"


def _many(leftover: Leftover) -> str:
    many = len(leftover.processes)
    return f"{many} processes" if many > 1 else "1 process"


def _holding(held: int | None, gpus: Collection[int]) -> str:
    if held:
        return f" and hold {gib(held)} of GPU memory"
    if held is None and gpus:
        return f" and hold memory of GPU {', '.join(map(str, gpus))}; the driver does not say how much"
    return ""


def files(ctx: CheckContext) -> Iterator[Seen]:
    """Temporary files and sockets of instances that no longer run."""
    for record, now in watched(ctx):
        folder = ctx.places.instances / record.name / "tmp"
        if now.state not in (instance.CRASHED, instance.STOPPED) or not folder.is_dir():
            continue
        if now.orphaned or group(record):
            continue
        count = sum(1 for _ in folder.rglob("*"))
        if count:
            yield warn(
                None,
                f"{record.name} left {count} temporary files or sockets behind",
                "They go with `mscli down`, or with its next start.",
                str(folder),
                command=f"mscli down {record.name}",
            )
