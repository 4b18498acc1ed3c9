"""What instances that have ended leave alive: processes and containers of ours, whether or not a record knows them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from mscli.frozen import frozen
from mscli.instances import container as containers
from mscli.instances.process import MARK, Identity, alive, boot_id, identify, send, stat, wait_death
from mscli.instances.records import Record, Records, leads
from mscli.instances.store import Unreadable
from mscli.paths import places

_KILL_TIMEOUT_S = 5.0


@frozen
class Marked:
    """One process of ours. `mark`: of its instance; `proof`: what shows that it is ours, in words."""

    who: Identity
    mark: str
    proof: str

    @property
    def name(self) -> str:
        """The instance for which it was started."""
        return self.mark.rpartition(":")[0]


def marked(instances: Path) -> tuple[Marked, ...]:
    """This user's living processes that carry the mark of an instance whose folder is (or was) below `instances`.

    A mark alone is not enough: another MSCLI_HOME of the same user has instances of its own, which are none of ours.
    """
    return tuple(_marked(instances.resolve()))


def _marked(instances: Path) -> Iterator[Marked]:
    for pid in _own_pids():
        environment = _environment(pid)
        mark = environment.get(MARK, "")
        if ":" not in mark or places(environment).instances.resolve() != instances:
            continue
        if (who := _living(pid)) is not None:
            yield Marked(who, mark, f"it carries {MARK}={mark}")


def session_of(record: Record) -> tuple[Marked, ...]:
    """Living processes in the session of a record's leader that write the instance's log.

    An engine's worker that sets its own title overwrites its environment, and the mark with it. A session cannot be
    joined from outside, but its number can be used again after its end: so the log must be open, too.
    """
    leader = record.identity
    if leader is None or leader.boot_id != boot_id():
        return ()
    proof = f"it is in the session of {record.name}'s process {leader.pid} and writes {record.log}"
    return tuple(
        Marked(who, record.mark, proof)
        for pid in _own_pids()
        if (seen := stat(pid)) and seen.session == leader.pid and seen.start_ticks >= leader.start_ticks
        if _writes(pid, record.log) and (who := _living(pid))
    )


def end(
    find: Callable[[], Sequence[Marked]], signals: Sequence[int], grace_s: float, listener: Callable[[str], None]
) -> tuple[Marked, ...]:
    """End all that `find` finds: each of `signals` in turn, `grace_s` seconds after each, then SIGKILL; who survived.

    What is found is looked for anew before every signal, since processes may start others meanwhile.
    """
    for number in (*signals, signal.SIGKILL):
        living = find()
        if not living:
            break
        listener(f"sending {signal.Signals(number).name} to {', '.join(str(each.who.pid) for each in living)}")
        for each in living:
            _signal(each.who, number)
        _wait([each.who for each in living], _KILL_TIMEOUT_S if number == signal.SIGKILL else grace_s)
    return tuple(find())


def _signal(who: Identity, number: int) -> None:
    """Signal exactly this process: its descriptor is opened before its identity is looked at, so no other process
    that is given its number in between can be hit."""
    try:
        handle = os.pidfd_open(who.pid)
    except ProcessLookupError:
        return
    except OSError:  # no pidfd here (old kernel, seccomp)
        if alive(who):
            send([who.pid], number)
        return
    try:
        if alive(who):
            signal.pidfd_send_signal(handle, number)
            signal.pidfd_send_signal(handle, signal.SIGCONT)  # a stopped process keeps all but SIGKILL waiting
    except ProcessLookupError:
        return
    finally:
        os.close(handle)


def _wait(whom: Sequence[Identity], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    for who in whom:
        while alive(who) and (left := deadline - time.monotonic()) > 0:
            wait_death(who.pid, min(left, 0.25))


def _own_pids() -> Iterator[int]:
    """The processes of this user, this one and its parents left out: it inherits a mark where an engine starts it."""
    own, skipped = os.geteuid(), set(_ancestors())
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) not in skipped and _user(int(entry)) == own:
            yield int(entry)


def _ancestors() -> Iterator[int]:
    pid = os.getpid()
    while pid > 0:
        yield pid
        parent = _status(pid, "PPid")
        pid = int(parent) if parent else 0


def _user(pid: int) -> int | None:
    real = _status(pid, "Uid")
    return int(real) if real else None


def _status(pid: int, field: str) -> str | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    except OSError:
        return None
    return next((line.split()[1] for line in lines if line.startswith(f"{field}:")), None)


def _environment(pid: int) -> Mapping[str, str]:
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (item.partition("=") for item in os.fsdecode(raw).split("\0"))
    return {name: value for name, _, value in pairs}


def _living(pid: int) -> Identity | None:
    who = identify(pid)
    return who if who is not None and alive(who) else None


def _writes(pid: int, log: Path) -> bool:
    """True if one of the two outputs of `pid` goes to `log`."""
    try:
        wanted = log.stat()
        opened = [Path(f"/proc/{pid}/fd/{number}").stat() for number in (1, 2)]
    except OSError:
        return False
    return any((each.st_dev, each.st_ino) == (wanted.st_dev, wanted.st_ino) for each in opened)


@frozen
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
    if record.owner is not None or leads(record):
        return _of(record.mark, found) if record.stopped_at is not None else ()
    own = {each.who.pid: each for each in (*session_of(record), *_of(record.mark, found))}
    return tuple(own[pid] for pid in sorted(own))


def _of(mark: str, found: tuple[Marked, ...]) -> tuple[Marked, ...]:
    return tuple(each for each in found if each.mark == mark)


def _contained(record: Record) -> bool:
    """True if its container outlived its client. One that was stopped is looked for among the processes alone."""
    if record.contained is None or leads(record):
        return False
    return bool(containers.pids(record.contained)) if record.stopped_at else containers.left(record.contained)
