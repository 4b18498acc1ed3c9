"""What instances that have ended leave alive, and what of ours no record knows any more."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from mscli.instances import container as containers
from mscli.instances.orphans import Marked, marked, session_of
from mscli.instances.process import alive
from mscli.instances.records import Record, Records
from mscli.instances.store import Unreadable


@dataclass(frozen=True)
class Leftover:
    """What lives of one start of the instance `name`. `record`: of the instance, which has ended; None: no record knows
    of this start, or (`damaged`) there is one that cannot be read, and whether it is in use is not known.

    `container`: the name of its container, where that outlived its client; its processes need not be in `processes`.
    """

    name: str
    mark: str
    record: Record | None
    processes: tuple[Marked, ...]
    container: str | None = None
    damaged: Unreadable | None = None

    @property
    def pids(self) -> tuple[int, ...]:
        """Its processes and those in its container, as far as they can be seen."""
        inside = containers.pids(self.record.contained) if self.record and self.record.contained else ()
        return tuple(sorted({*(each.who.pid for each in self.processes), *inside}))


def leftovers(records: Records, patience_s: float = 10.0) -> tuple[Leftover, ...]:
    """Everything that is left, by instance.

    Asks a container's engine where its client is gone. Where something is found it looks again under the records' lock,
    which a start holds from its spawn until its record is written. Raises FILE when another mscli does not let go of it
    within `patience_s`, OSError where there can be no lock.
    """
    contained = {record.mark for record in records.all()[0] if _contained(record)}
    if not any(_leftovers(records, contained)):
        return ()
    with records.lock(patience_s):
        return tuple(_leftovers(records, contained))


def still(leftover: Leftover, records: Records) -> tuple[Marked, ...]:
    """The processes that live of it now; none once its instance is seen to be in use after all."""
    found = marked(records.folder)
    with records.lock():
        now = records.load(leftover.name)
    if isinstance(now, Record) and now.mark == leftover.mark:
        return _processes(now, found)
    return () if isinstance(now, Unreadable) else _of(leftover.mark, found)


def _leftovers(records: Records, contained: Collection[str]) -> Iterator[Leftover]:
    """`contained`: the marks of those whose container is there."""
    known, damaged = records.all()
    found = marked(records.folder)
    for record in known:
        own = _processes(record, found)
        container = record.contained.name if record.contained and record.mark in contained else None
        if own or container:
            yield Leftover(record.name, record.mark, record, own, container)
    unreadable = {item.name: item for item in damaged}
    for mark in sorted({each.mark for each in found} - {record.mark for record in known}):
        own = _of(mark, found)
        yield Leftover(own[0].name, mark, None, own, damaged=unreadable.get(own[0].name))


def _processes(record: Record, found: tuple[Marked, ...]) -> tuple[Marked, ...]:
    """What lives of an instance whose leader has died, or that was stopped; none while it is in use."""
    if record.identity is None or alive(record.identity):
        return _of(record.mark, found) if record.stopped_at is not None else ()
    own = {each.who.pid: each for each in (*session_of(record), *_of(record.mark, found))}
    return tuple(own[pid] for pid in sorted(own))


def _of(mark: str, found: tuple[Marked, ...]) -> tuple[Marked, ...]:
    return tuple(each for each in found if each.mark == mark)


def _contained(record: Record) -> bool:
    """True if its container outlived its client. One that was stopped is looked for among the processes alone."""
    if record.contained is None or record.identity is None or alive(record.identity):
        return False
    return bool(containers.pids(record.contained)) if record.stopped_at else containers.left(record.contained)
