"""An instance as users see it: its record, whether its processes live, and what its endpoint answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mscli.errors import Code, MscliError
from mscli.lifecycle.endpoint import probe
from mscli.lifecycle.process import alive, members
from mscli.lifecycle.records import Record, Records
from mscli.planning.plan import Claim

STARTING, READY, UNRESPONSIVE, CRASHED, STOPPED = "starting", "ready", "unresponsive", "crashed", "stopped"
RUNNING = (STARTING, READY, UNRESPONSIVE)


@dataclass(frozen=True)
class Instance:
    """One instance now. `since`: seconds since the epoch. `model`: the name that clients send.

    `pid` None: the server is not ours; `owner` says whose it is.
    `orphans`: processes of ours that outlived their leader and may still hold GPU memory.
    `stand_in`: the model is a scripted stand-in, not a language model.
    """

    name: str
    profile: str
    engine: str
    state: str
    pid: int | None
    owner: str | None
    port: int
    base_url: str
    model: str
    context: int
    gpus: tuple[int, ...]
    since: float
    log: Path
    stand_in: bool
    orphans: tuple[int, ...]


def look(record: Record, records: Records) -> Instance:
    """The instance of `record` now. Waits at most about 2 seconds, for an endpoint that does not answer."""
    state, orphans = _state(record, records)
    return Instance(
        name=record.name,
        profile=record.plan.profile,
        engine=record.plan.engine,
        state=state,
        pid=record.identity.pid if record.identity else None,
        owner=record.owner,
        port=record.port,
        base_url=record.base_url,
        model=record.alias,
        context=record.plan.context,
        gpus=record.plan.gpus,
        since=record.since,
        log=record.log,
        stand_in=record.stand_in,
        orphans=orphans,
    )


def _state(record: Record, records: Records) -> tuple[str, tuple[int, ...]]:
    if record.stopped_at is not None:
        return STOPPED, ()
    if record.identity and not alive(record.identity):
        return CRASHED, group(record)
    if probe(record.host, record.port, record.health_path).status == 200:
        if not records.was_ready(record.name):  # started with --no-wait: nobody has written it down yet
            records.mark_ready(record.name)
        return READY, ()
    return (UNRESPONSIVE if records.was_ready(record.name) else STARTING), ()


def group(record: Record) -> tuple[int, ...]:
    """The living processes of an instance; none where the server is not ours."""
    return members(record.identity, record.mark) if record.identity else ()


def running(record: Record) -> bool:
    """True while any process of the instance lives, or it has a model on somebody else's server: it may hold memory."""
    if record.stopped_at is not None or record.identity is None:
        return record.stopped_at is None
    return alive(record.identity) or bool(group(record))


def claims(records: tuple[Record, ...], replaced: str | None) -> tuple[Claim, ...]:
    """What our own instances hold or are about to take on each GPU; what the one named `replaced` holds comes back."""
    return tuple(
        Claim(
            instance=record.name,
            gpu_uuid=memory.uuid,
            planned_bytes=memory.needed_bytes,
            pids=group(record),
            replaced=record.name == replaced,
        )
        for record in records
        if running(record)
        for memory in record.plan.memory
    )


def the_one(records: Records, name: str | None) -> Record:
    """The record meant by an optional name: the named one, or the only one that runs.

    Raises NOT_RUNNING when there is none, USAGE when a name is needed to tell several apart.
    """
    if name is not None:
        record = records.get(name)
        if record is None:
            raise MscliError(Code.NOT_RUNNING, f"there is no instance {name!r}", _known(records))
        return record
    live = [record for record in records.all()[0] if running(record)]
    if not live:
        raise MscliError(Code.NOT_RUNNING, "nothing is running", "Start something: mscli up, or mscli up rehearsal")
    if len(live) > 1:
        names = ", ".join(record.name for record in live)
        raise MscliError(Code.USAGE, f"several instances run: {names}", f"Say which one, for example {live[0].name}.")
    return live[0]


def _known(records: Records) -> str:
    names = ", ".join(record.name for record in records.all()[0])
    return f"Known instances: {names}" if names else "Start one: mscli up, or mscli up rehearsal"
