"""Which of our instances run, and what they claim of the GPUs."""

from __future__ import annotations

from mscli.errors import Code, MscliError
from mscli.instances import container as containers
from mscli.instances.json_values import to_json
from mscli.instances.process import alive, members
from mscli.instances.records import Record, Records
from mscli.instances.state import Instance, look
from mscli.instances.store import Unreadable, unreadable
from mscli.planning.plan import Claim


def seen(record: Record, records: Records) -> Instance:
    """The instance of `record` now. Waits at most about 2 seconds, for an endpoint that does not answer."""
    found = look(to_json(record), records)
    if isinstance(found, Unreadable):
        raise unreadable(found)
    return found


def group(record: Record) -> tuple[int, ...]:
    """The living processes of an instance, its container's included; none where the server is not ours."""
    found = members(record.identity, record.mark) if record.identity else ()
    return tuple(sorted({*found, *containers.pids(record.contained)})) if record.contained else found


def running(record: Record) -> bool:
    """True while any process of the instance lives, or its container is there, or it has a model on somebody else's
    server: it may hold memory. Waits for the container's engine where its client is gone."""
    if record.stopped_at is not None or record.identity is None:
        return record.stopped_at is None
    if alive(record.identity) or group(record):
        return True
    return record.contained is not None and containers.left(record.contained)


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
