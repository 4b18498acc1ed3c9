"""Waiting for an engine that was spawned: its health check raced against its death, a fatal line, a stranger on its
port, a stall and the deadline; and for a start of another mscli."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable

from mscli.engines import engine as contract
from mscli.engines.engine import Engine
from mscli.engines.environment import Contained
from mscli.errors import Code, MscliError
from mscli.frozen import frozen
from mscli.instances.container import pids, publishes
from mscli.instances.log import LogTail
from mscli.instances.process import Identity, alive, cpu_ticks, group_lazily, members, wait_death
from mscli.instances.records import Record, Records, seen
from mscli.instances.state import CRASHED, STARTING, STOPPED, probe
from mscli.inventory.ports import listens
from mscli.lifecycle.progress import Listener, Patience, stopped_meanwhile

_POLL_S = 0.02
_SOON_S, _SHARE = 0.004, 0.03  # a start of a fraction of a second is looked at more often, each time that share later
_JOIN_POLL_S = 0.1
_LOOK_AT_GROUP_S = 1.0
_LAST_WORDS_S = 3.0  # in which an engine that reported a fatal error may end by itself, or prove to be well
_TROUBLE = re.compile(r"rror|atal|ailed|panicked|fallen off|OutOfMemory|NCCL|cuInit|exiting", re.IGNORECASE)


@frozen
class Wait:
    """How waiting for readiness ended: `outcome` is ready, died, failed (it wrote a line that no engine recovers from,
    and did not end), stalled, timeout, or taken (the port, by a stranger).

    `exit_status`: the process's (negative: killed by that signal), None while it lives or unless it is our child.
    """

    outcome: str
    seconds: float
    exit_status: int | None


def wait_ready(
    child: subprocess.Popen[bytes],
    leader: Identity,
    mark: str,
    engine: Engine,
    address: tuple[str, int],
    tail: LogTail,
    patience: Patience,
    listener: Callable[[str, str], None],
    contained: Contained | None = None,
    health_path: str | None = None,
    fatal: Callable[[str], bool] = lambda _: False,
) -> Wait:
    """Wait until the engine answers its health check with 200.

    Races health against the child's death, a line that is `fatal`, the loss of the port to a stranger, a stall and the
    deadline; `listener(stage, line)` hears each new log line with the stage it announces ("" for none). `contained`:
    the container whose client the child is. Blocks at most `patience.timeout_s`.
    """
    begun, doomed = time.monotonic(), float("inf")
    life = _SignsOfLife(leader, mark, contained, begun)
    port = _Port(address[1], leader, mark, contained, begun)
    while True:
        for line in tail.lines():
            life.seen(time.monotonic())
            listener(engine.stage(line) or "", line)
            doomed = min(doomed, time.monotonic()) if fatal(line) else doomed
        if child.poll() is not None:
            return Wait("died", time.monotonic() - begun, child.returncode)
        if probe(*address, health_path or engine.health_path).status == 200 and port.ours():
            return Wait("ready", time.monotonic() - begun, None)
        now = time.monotonic()
        if now - doomed > _LAST_WORDS_S:
            return Wait("failed", now - begun, None)
        if port.lost(now):
            return Wait("taken", now - begun, None)
        if now - begun > patience.timeout_s:
            return Wait("timeout", now - begun, None)
        if life.silent_s(now) > patience.stall_s:
            return Wait("stalled", now - begun, None)
        wait_death(child.pid, min(_POLL_S, max(_SOON_S, _SHARE * (now - begun))))


class _Port:
    """The port on which the engine is to listen: somebody else may take it while the engine starts.

    A container's port is held by a process of its engine, or by none that can be seen: the engine's word counts, which
    it gives only once the port is its own.
    """

    def __init__(self, port: int, leader: Identity, mark: str, contained: Contained | None, now: float) -> None:
        self._port, self._leader, self._mark, self._contained = port, leader, mark, contained
        self._looked, self._strange = now, 0

    def ours(self) -> bool:
        """False if what answers there is not our engine."""
        if self._contained is not None:
            return publishes(self._contained, self._port)
        return listens(self._port, group_lazily(self._leader, self._mark)) is not False

    def lost(self, now: float) -> bool:
        """True once two looks, a second apart, have found a stranger there: one alone may be a port that changes hands
        from an engine's first process to its second."""
        if now - self._looked > _LOOK_AT_GROUP_S and self._contained is None:
            self._looked = now
            self._strange = 0 if self.ours() else self._strange + 1
        return self._strange > 1


class _SignsOfLife:
    """A process that neither logs nor uses the CPU is stuck, however long it is allowed to take."""

    def __init__(self, leader: Identity, mark: str, contained: Contained | None, now: float) -> None:
        self._leader, self._mark, self._contained = leader, mark, contained
        self._ticks, self._looked, self._last = 0, now, now

    def seen(self, now: float) -> None:
        self._last = now

    def silent_s(self, now: float) -> float:
        if now - self._looked > _LOOK_AT_GROUP_S:
            self._looked = now
            inside = pids(self._contained) if self._contained else ()
            ticks = cpu_ticks(tuple({*members(self._leader, self._mark), *inside}))
            if ticks != self._ticks:
                self._ticks, self._last = ticks, now
        return now - self._last


def join(record: Record, patience: Patience, listener: Listener, records: Records) -> Record | None:
    """Wait until an instance that another mscli is starting answers; its record then. None: it has ended, and nobody
    attends to it any more.

    The other mscli may change its plan and try again: then it is the new start that is waited for. Raises START_FAILED
    when the other gives up, StoppedMeanwhile when somebody stops it, START_TIMEOUT when it takes too long: it is left
    running.
    """
    deadline, starter = time.monotonic() + patience.timeout_s, record.starter
    tail = LogTail(record.log)
    attended = starter is not None and alive(starter)
    by = f" by PID {starter.pid}" if starter and attended else ""
    listener.stage(contract.STARTING, f"{record.name} is already being started{by}: waiting for it")
    while True:
        for line in tail.lines():
            listener.log_line(line)
        now = records.get(record.name)
        state = seen(now, records).state if now else CRASHED
        if now and state == STOPPED:
            raise stopped_meanwhile(now)
        if now and state not in (STARTING, CRASHED):
            return now
        starter = now.starter if now else starter
        if state == CRASHED and not (starter and alive(starter)):
            if not attended:
                return None
            raise MscliError(Code.START_FAILED, f"{record.name} did not start", f"See why: mscli logs {record.name}")
        if time.monotonic() > deadline:
            raise MscliError(
                Code.START_TIMEOUT,
                f"{record.name} was not ready after {patience.timeout_s:.0f} s; it is still starting",
                f"Allow more time: --timeout. Follow it: mscli logs {record.name} -f",
            )
        time.sleep(_JOIN_POLL_S)


def is_fatal_line(line: str) -> bool:
    """Whether no engine recovers from what a line says."""
    if not _TROUBLE.search(line):
        return False
    from mscli.diagnosis.matching import is_fatal  # reads the signatures; only a line of trouble needs them

    return is_fatal(line)
