"""Checks of our own instances: their state and why they ended, what they left behind, their folders."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mscli.diagnosis.causes import Cause
from mscli.doctor.checks.check import Check, CheckContext, Finding, counted, fail, ok, shell, skipped, tail, warn
from mscli.doctor.checks.instances.own_files import OWNER, WRITE, Unsafe, unsafe_files
from mscli.doctor.checks.ports import port_owner
from mscli.engines.engine import LOADING, STARTING, Engine
from mscli.engines.table import STARTABLE, engine
from mscli.errors import MscliError
from mscli.instances import state as instance
from mscli.instances.log import last_start, part, part_start
from mscli.instances.orphans import Leftover, leftovers
from mscli.instances.process import boot_id, describe
from mscli.instances.process import stat as process_stat
from mscli.instances.records import Record, Records, group, seen
from mscli.instances.state import Instance
from mscli.inventory.inventory import total_bytes
from mscli.inventory.ports import listening, owner
from mscli.planning.plan import gib, tokens

_LOG_BYTES = 2**20
_RECENT_S = 86_400.0
_MOST = 8
_LARGE_LOG = 2**30


def watched(ctx: CheckContext) -> tuple[tuple[Record, Instance], ...]:
    """Every instance with its record, as it is now; looked at once, all at the same time: a silent one takes 2 s."""
    return ctx.once("instances", lambda: _watched(ctx))


def _watched(ctx: CheckContext) -> tuple[tuple[Record, Instance], ...]:
    store = Records(ctx.places)

    def look(record: Record) -> tuple[Record, Instance] | None:
        try:
            return record, seen(record, store)
        except MscliError:  # it has been replaced meanwhile
            return None

    if not ctx.records:
        return ()
    with ThreadPoolExecutor(min(len(ctx.records), 16)) as pool:
        return tuple(found for found in pool.map(look, ctx.records) if found is not None)


def states(ctx: CheckContext) -> Iterator[Finding]:
    """Each instance: ready, starting, silent, without its model, crashed with the cause its log shows, or served by
    somebody else."""
    found = watched(ctx)
    for record, now in found:
        if now.state in (instance.READY, instance.STARTING):
            yield _running(ctx, record, now)
        elif now.state == instance.UNLOADED:
            yield _unloaded(record, now)
        elif now.state == instance.UNRESPONSIVE:
            yield _silent(ctx, record)
        elif now.state == instance.CRASHED:
            yield _crashed(ctx, record)
    stopped = sum(now.state == instance.STOPPED for _, now in found)
    if stopped or not found:
        yield ok(f"{stopped} stopped" if found else "no instances")


def _unloaded(record: Record, now: Instance) -> Finding:
    """A model that is out of memory: as it was asked for where it is idle, else by somebody."""
    seen = f"{record.name} is unloaded: {now.note}"
    if record.request.idle_stop_s:
        return ok(seen)
    return warn(None, seen, "Load it again:", command=f"mscli restart {record.name}")


def _running(ctx: CheckContext, record: Record, now: Instance) -> Finding:
    holder = owner(record.port)
    strange = (
        record.identity is not None and record.plan.engine != "vllm-docker" and holder not in (None, *group(record))
    )
    if not strange and now.note and now.state == instance.READY:
        return warn(
            None, f"{record.name} is ready, but {now.note}", "Start it again:", command=f"mscli restart {record.name}"
        )
    if not strange:
        return ok(f"{record.name} is {now.state} at {record.base_url}", f"{record.plan.engine}, {record.title}")
    return fail(
        "port",
        f"port {record.port} of {record.name} is in use by {port_owner(ctx, record.port).words}",
        "Restart the instance on another port:",
        command=f"mscli up {record.plan.profile} --name {record.name} --replace",
    )


def _silent(ctx: CheckContext, record: Record) -> Finding:
    halted = record.identity and (state := process_stat(record.identity.pid)) and state.state in "Tt"
    if halted and record.identity:
        return fail(
            None,
            f"{record.name} does not answer: process {record.identity.pid} is stopped (SIGSTOP)",
            "Continue it:",
            command=f"kill -CONT {record.identity.pid}",
        )
    cause = _cause(ctx, record.log, part_start(record.log, record.log_start))
    said = f": {cause.summary}" if cause else ""
    return fail(
        cause.code if cause else None,
        f"{record.name} does not answer, but its process is alive{said}",
        f"{cause.remedy if cause else ''} Look at its log (mscli logs {record.name}), then restart it:".strip(),
        *(cause.evidence if cause else _last_lines(record.log, part_start(record.log, record.log_start))),
        command=f"mscli restart {record.name}",
    )


def _crashed(ctx: CheckContext, record: Record) -> Finding:
    again = f"mscli restart {record.name}"
    taken = ""
    if listening(record.port):
        taken = f"; its port {record.port} is now in use by {port_owner(ctx, record.port).words}"
    if record.identity and record.identity.boot_id != boot_id():
        remedy = f"Start it again, or remove it (mscli down {record.name}):"
        return warn(None, f"{record.name} ended with the last shutdown{taken}", remedy, command=again)
    cause = _cause(ctx, record.log, part_start(record.log, record.log_start))
    if cause is None:
        seen = f"{record.name} ended unexpectedly (no cause in its log){taken}"
        return fail(
            None,
            seen,
            f"Look at its log (mscli logs {record.name}), then restart it:",
            *_last_lines(record.log, part_start(record.log, record.log_start)),
            command=again,
        )
    seen = f"{record.name} ended unexpectedly: {cause.summary}{taken}"
    return fail(cause.code, seen, cause.remedy, *cause.evidence, command=again)


def failed_starts(ctx: CheckContext) -> Iterator[Finding]:
    """Starts that failed within the last day and left only their log: the cause that it shows."""
    for log in sorted(ctx.places.instances.glob("*/log")):
        if (log.parent / "record.json").exists():
            continue
        try:
            age_s = time.time() - log.stat().st_mtime
        except OSError:
            continue
        cause = _cause(ctx, log, last_start(log)) if age_s < _RECENT_S else None
        if cause is not None:
            name = log.parent.name
            seen = f"the last start of {name} failed {age_s / 3600:.1f} h ago: {cause.summary}"
            yield warn(cause.code, seen, cause.remedy, *cause.evidence, command=f"mscli logs {name}")


def _cause(ctx: CheckContext, log: Path, start: int = 0) -> Cause | None:
    """The likeliest cause that the end of a log shows, where it is likelier than not. `start`: where the part of the
    instance's last start begins; what earlier ones logged is no evidence."""
    return next(iter(ctx.causes(tail(log, _LOG_BYTES, start), None)), None)


def _last_lines(log: Path, start: int) -> list[str]:
    return [line.strip()[:200] for line in tail(log, 4096, start).splitlines() if line.strip()][-_MOST:]


def context(ctx: CheckContext) -> Iterator[Finding]:
    """The context that each engine says to serve, against the one that was planned: prompts beyond it are cut."""
    for record, now in watched(ctx):
        if now.state != instance.READY or record.plan.engine not in STARTABLE or record.identity is None:
            continue
        served = _served_context(engine(record.plan.engine), part(record.log, record.log_start, 8 * _LOG_BYTES))
        if served is None:
            continue
        if served >= record.plan.context:
            yield ok(f"{record.name} serves {tokens(served)} of context")
        else:
            yield warn(
                "context_truncated",
                f"{record.name} serves {served:,} of {tokens(record.plan.context)} of context (longer prompts are cut)",
                "Plan a smaller context, or restart it and look at its log:",
                command=f"mscli restart {record.name}",
            )


def _served_context(known: Engine, log: str) -> int | None:
    """What the latest start in the log says: looked for from each line that begins a stage, the last one first."""
    lines = log.splitlines(keepends=True)
    starts = [place for place, line in enumerate(lines) if known.stage(line) in (STARTING, LOADING)]
    for start in [*reversed(starts), 0]:
        if (found := known.observe("".join(lines[start:])).context) is not None:
            return found
    return None


_LOCK_S = 1.0


def orphans(ctx: CheckContext) -> Iterator[Finding]:
    """Processes of an instance that outlived its server, with the GPU memory that they hold, and its container."""
    found = _found(ctx)
    if isinstance(found, str):
        yield skipped(found)
        return
    ended = [(each, each.record) for each in found if each.record]
    for leftover, record in ended:
        held = total_bytes(ctx.inventory.holders(leftover.pids))
        what = f"{_many(leftover)} left by {leftover.name}"
        if leftover.container:
            what = f"container {leftover.container} of {leftover.name} runs without its client"
        yield fail(
            "gpu_busy" if held or (held is None and record.plan.devices) else None,
            f"{what}{_gpu_memory(held, record.plan.gpus)}",
            "Stop it:" if leftover.container else "Stop them:",
            *(describe(pid) for pid in leftover.pids),
            command=f"mscli down {record.name}",
        )
    if not ended:
        yield ok("no processes left by instances")


def unrecorded(ctx: CheckContext) -> Iterator[Finding]:
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
            f"{_many(leftover)} of instance {leftover.name} without a record{_gpu_memory(held, ())}",
            "Look at them, then stop them:",
            *(describe(pid) for pid in leftover.pids),
            command=f"kill {' '.join(map(str, leftover.pids))}",
        )
    if not lost:
        yield ok("no processes without a record")


def _found(ctx: CheckContext) -> tuple[Leftover, ...] | str:
    """What is left, or why that cannot be told."""

    def look() -> tuple[Leftover, ...] | str:
        unsafe_files(ctx)  # seen before the lock is taken, which closes the folder of records
        try:
            return leftovers(Records(ctx.places), _LOCK_S)
        except MscliError as fault:
            return fault.message
        except OSError as fault:
            return f"{fault.filename}: {fault.strerror}"

    return ctx.once("leftovers", look)


def _many(leftover: Leftover) -> str:
    return counted(len(leftover.processes), "process", "processes")


def _gpu_memory(held: int | None, gpus: Collection[int]) -> str:
    if held:
        return f", using {gib(held)} of GPU memory"
    if held is None and gpus:
        return f", using memory of GPU {', '.join(map(str, gpus))} (size unknown)"
    return ""


def files(ctx: CheckContext) -> Iterator[Finding]:
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
                f"{counted(count, 'temporary file')} left by {record.name}",
                "Remove them:",
                str(folder),
                command=f"mscli down {record.name}",
            )


def records(ctx: CheckContext) -> Iterator[Finding]:
    """Every record can be read. One that cannot is left as it is: what it started may still run."""
    good, damaged = Records(ctx.places).all()
    for each in damaged:
        yield fail(
            None,
            f"cannot read the record of {each.name}: {each.reason}",
            "Its processes may still run (see instances.unrecorded). If you do not need it:",
            str(each.path),
            command=f"mv {shell(each.path)} {shell(each.path)}.damaged",
        )
    if not damaged:
        yield ok(f"{counted(len(good), 'instance record')}, readable" if good else "no instance records")


def folders(ctx: CheckContext) -> Iterator[Finding]:
    """Folders and files of mscli's own are this user's, and nobody else can change them, or read keys and logs."""
    found = unsafe_files(ctx)
    yield from map(_unsafe, found)
    if not found:
        yield ok("instance files are private (0700/0600)")


def _unsafe(each: Unsafe) -> Finding:
    if each.problem == OWNER:
        seen, command = f"{each.what} belongs to another user (mscli run with sudo?)", f"chown -R {os.geteuid()}"
        return fail("permissions", seen, "Change the owner:", each.shown, command=f"sudo {command} {shell(each.path)}")
    severity, code = (fail, "permissions") if each.problem == WRITE else (warn, None)
    seen = f"other users can {'change' if each.problem == WRITE else 'read'} {each.what}"
    return severity(code, seen, "Make it private:", each.shown, command=f"chmod {each.mode:o} {shell(each.path)}")


def logs(ctx: CheckContext) -> Iterator[Finding]:
    """Logs that take a gigabyte or more."""
    for log in sorted(ctx.places.instances.glob("*/log")):
        try:
            size = log.stat().st_size
        except OSError:
            continue
        if size >= _LARGE_LOG:
            remedy = "It can be emptied while the engine runs:"
            yield warn(None, f"log of {log.parent.name}: {gib(size)}", remedy, command=f"truncate -s 0 {shell(log)}")


CHECKS = (
    Check("instances.records", records),
    Check("instances.state", states, deadline_s=6.0),  # a log is diagnosed: reading the signatures counts too
    Check("instances.failed_starts", failed_starts, deadline_s=6.0),
    Check("instances.orphans", orphans),
    Check("instances.unrecorded", unrecorded),
    Check("instances.leftovers", files),
    Check("instances.folders", folders),
    Check("instances.logs", logs),
    Check("instances.context", context),
)
