"""Which of our instances run, and why those that do not have ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mscli.diagnosis.diagnose import RankedCause, diagnose
from mscli.diagnosis.facts import facts_of
from mscli.doctor.checks.check import Seen, fail, ok, warn
from mscli.doctor.checks.context import CheckContext
from mscli.doctor.checks.ports.port_owner import keeper
from mscli.engines.engine import LOADING, STARTING, Engine
from mscli.engines.table import STARTABLE, engine
from mscli.errors import MscliError
from mscli.instances import state as instance
from mscli.instances.process import boot_id, stat
from mscli.instances.records import Record, Records, group, seen
from mscli.instances.state import Instance
from mscli.inventory.ports import listening, owner
from mscli.planning.figures import tokens

_LOG_BYTES = 2**20
_CAUSE = 0.5
_RECENT_S = 86_400.0
_MOST = 8


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


def states(ctx: CheckContext) -> Iterator[Seen]:
    """Each instance: ready, starting, silent, crashed with the cause its log shows, or served by somebody else."""
    found = watched(ctx)
    for record, now in found:
        if now.state in (instance.READY, instance.STARTING):
            yield _running(ctx, record, now)
        elif now.state == instance.UNRESPONSIVE:
            yield _silent(ctx, record)
        elif now.state == instance.CRASHED:
            yield _crashed(ctx, record)
    stopped = sum(now.state == instance.STOPPED for _, now in found)
    if stopped or not found:
        yield ok(f"{stopped} stopped" if found else "there are no instances")


def _running(ctx: CheckContext, record: Record, now: Instance) -> Seen:
    holder = owner(record.port)
    strange = (
        record.identity is not None and record.plan.engine != "vllm-docker" and holder not in (None, *group(record))
    )
    if not strange:
        return ok(f"{record.name} is {now.state} at {record.base_url}", f"{record.plan.engine}, {record.title}")
    return fail(
        "port",
        f"port {record.port} of {record.name} is answered by {keeper(ctx, record.port).said}, not by {record.name}",
        "Clients of the instance talk to somebody else: start it anew on another port.",
        command=f"mscli up {record.plan.profile} --name {record.name} --replace",
    )


def _silent(ctx: CheckContext, record: Record) -> Seen:
    halted = record.identity and (state := stat(record.identity.pid)) and state.state in "Tt"
    if halted and record.identity:
        return fail(
            None,
            f"{record.name} does not answer: its process {record.identity.pid} is halted (SIGSTOP)",
            "Let it go on.",
            command=f"kill -CONT {record.identity.pid}",
        )
    cause = _cause(ctx, record.log)
    said = f": {cause.summary}" if cause else ""
    return fail(
        cause.code if cause else None,
        f"{record.name} does not answer, though its process lives{said}",
        f"{cause.remedy if cause else ''} Look at its log: mscli logs {record.name}.".strip(),
        *(cause.evidence if cause else _last_lines(record.log)),
        command=f"mscli restart {record.name}",
    )


def _crashed(ctx: CheckContext, record: Record) -> Seen:
    again = f"mscli restart {record.name}"
    taken = ""
    if listening(record.port):
        taken = f"; its port {record.port} now belongs to {keeper(ctx, record.port).said}"
    if record.identity and record.identity.boot_id != boot_id():
        remedy = "Start it again; `mscli down` takes it off the list."
        return warn(None, f"{record.name} ended with the last shutdown of this machine{taken}", remedy, command=again)
    cause = _cause(ctx, record.log)
    if cause is None:
        seen = f"{record.name} has ended by itself, and its log shows no cause{taken}"
        return fail(None, seen, f"Look at it: mscli logs {record.name}.", *_last_lines(record.log), command=again)
    seen = f"{record.name} has ended by itself: {cause.summary}{taken}"
    return fail(cause.code, seen, cause.remedy, *cause.evidence, command=again)


def failed_starts(ctx: CheckContext) -> Iterator[Seen]:
    """Starts that failed within the last day and left only their log: the cause that it shows."""
    for log in sorted(ctx.places.instances.glob("*/log")):
        if (log.parent / "record.json").exists():
            continue
        try:
            age_s = time.time() - log.stat().st_mtime
        except OSError:
            continue
        cause = _cause(ctx, log) if age_s < _RECENT_S else None
        if cause is not None:
            name = log.parent.name
            seen = f"the last start of {name} failed, {_ago(age_s)}: {cause.summary}"
            yield warn(cause.code, seen, cause.remedy, *cause.evidence, command=f"mscli logs {name}")


def _ago(age_s: float) -> str:
    return f"{age_s / 3600:.0f} hours ago" if age_s > 5400 else f"{age_s / 60:.0f} minutes ago"


def _cause(ctx: CheckContext, log: Path) -> RankedCause | None:
    """The likeliest cause that the end of a log shows, where it is likelier than not."""
    text = tail(log, _LOG_BYTES)
    found = diagnose(text, None, facts_of(ctx.inventory)) if text.strip() else ()
    return found[0] if found and found[0].confidence >= _CAUSE else None


def tail(log: Path, size: int) -> str:
    """The last `size` bytes of a log; empty where it cannot be read."""
    try:
        with log.open("rb") as handle:
            handle.seek(max(0, handle.seek(0, 2) - size))
            return handle.read().decode(errors="replace")
    except OSError:
        return ""


def _last_lines(log: Path) -> list[str]:
    return [line.strip()[:200] for line in tail(log, 4096).splitlines() if line.strip()][-_MOST:]


def context(ctx: CheckContext) -> Iterator[Seen]:
    """The context that each engine says to serve, against the one that was planned: prompts beyond it are cut."""
    for record, now in watched(ctx):
        if now.state != instance.READY or record.plan.engine not in STARTABLE or record.identity is None:
            continue
        served = _served_context(engine(record.plan.engine), tail(record.log, 8 * _LOG_BYTES))
        if served is None:
            continue
        if served >= record.plan.context:
            yield ok(f"{record.name} serves a context of {tokens(served)}")
        else:
            yield warn(
                "context_truncated",
                f"{record.name} serves a context of {tokens(served)}, {tokens(record.plan.context)} were planned",
                "Longer prompts are refused or cut: ask for what it can hold, or start it anew and see its log.",
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
