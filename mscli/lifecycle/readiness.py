"""Waiting until an engine answers: health against death, stall and the deadline."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mscli.engines.engine import Contained, Engine
from mscli.instances.container import pids, publishes
from mscli.instances.probe import probe
from mscli.instances.process import Identity, cpu_ticks, members, wait_death
from mscli.lifecycle.port import owner

_POLL_S = 0.02
_LOOK_AT_GROUP_S = 1.0


@dataclass(frozen=True)
class Wait:
    """How waiting for readiness ended: `outcome` is ready, died, stalled or timeout.

    `exit_status`: the process's (negative: killed by that signal), None while it lives or unless it is our child.
    """

    outcome: str
    seconds: float
    exit_status: int | None


class LogTail:
    """The lines that were added to a log file since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0
        self._rest = b""

    def lines(self) -> list[str]:
        """New whole lines; an unfinished last line is kept for the next look."""
        try:
            with self._path.open("rb") as handle:
                handle.seek(self._offset)
                fresh = handle.read()
        except FileNotFoundError:
            return []
        self._offset += len(fresh)
        *whole, self._rest = (self._rest + fresh).split(b"\n")
        return [line.decode(errors="replace") for line in whole]


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds: `timeout_s` in all, `stall_s` without any sign of life (log line or CPU time)."""

    timeout_s: float = 1800.0
    stall_s: float = 300.0


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
) -> Wait:
    """Wait until the engine answers its health check with 200.

    Races health against the child's death, a stall and the deadline; `listener(stage, line)` hears each new log line
    with the stage it announces ("" for none). `contained`: the container whose client the child is. Blocks at most
    `patience.timeout_s`.
    """
    begun = time.monotonic()
    life = _SignsOfLife(leader, mark, contained, begun)
    while True:
        for line in tail.lines():
            life.seen(time.monotonic())
            listener(engine.stage(line) or "", line)
        if child.poll() is not None:
            return Wait("died", time.monotonic() - begun, child.returncode)
        if probe(*address, engine.health_path).status == 200 and _ours(address[1], leader, mark, contained):
            return Wait("ready", time.monotonic() - begun, None)
        now = time.monotonic()
        if now - begun > patience.timeout_s:
            return Wait("timeout", now - begun, None)
        if life.silent_s(now) > patience.stall_s:
            return Wait("stalled", now - begun, None)
        wait_death(child.pid, _POLL_S)


def _ours(port: int, leader: Identity, mark: str, contained: Contained | None) -> bool:
    """False if the answer came from somebody else, who took the port while our engine was starting.

    A container's port is held by a process of its engine, or by none that can be seen: the engine's word counts, which
    it gives only once the port is its own.
    """
    if contained is not None:
        return publishes(contained, port)
    holder = owner(port)
    return holder is None or holder in members(leader, mark)


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
