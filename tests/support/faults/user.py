"""A user whose engine does what a test orders, and several calls of mscli at once."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mscli.instances.process import MARK
from mscli.instances.records import Record, Records
from mscli.paths import places
from support.run_mscli import Ran, call


@dataclass
class User:
    """A user with a home of his own and an obedient llama-server on PATH. `orders`: the folder it reads."""

    env: dict[str, str]
    home: Path
    orders: Path
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    def mscli(self, *args: str, **more: str) -> Ran:
        """One call of mscli, to its end."""
        return call(*args, env={**self.env, **more})

    def begin(self, *args: str, prefix: Sequence[str] = ()) -> subprocess.Popen[str]:
        """A call of mscli that goes on while the test does something else."""
        started = subprocess.Popen(
            [*prefix, sys.executable, "-m", "mscli", *args], env=self.env, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.running.append(started)
        return started

    def order(self, name: str, text: str = "") -> None:
        """Has the engine do something from now on."""
        (self.orders / name).write_text(text)

    @property
    def records(self) -> Records:
        """What is recorded of the user's instances."""
        return Records(places(self.env))

    def record(self, name: str = "rehearsal") -> Record:
        """The record of an instance that is there."""
        found = self.records.get(name)
        assert found is not None
        return found

    def starts(self) -> list[int]:
        """The pids of all engines that were started."""
        return sorted(int(path.suffix[1:]) for path in self.orders.glob("started.*"))

    def engines(self) -> list[int]:
        """The pids of the engines that live, whether or not a record knows them."""
        mark = f"{MARK}=".encode()
        return [pid for pid in self.starts() if mark in _read(f"/proc/{pid}/environ") and _state(pid) not in "ZX"]

    def begun(self, number: int = 1) -> None:
        """Waits until so many engines have been started."""
        until(lambda: len(self.starts()) >= number)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def _state(pid: int) -> str:
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[:1][0].decode() if _read(f"/proc/{pid}/stat") else "X"


def until(done: Callable[[], object], timeout_s: float = 30.0) -> None:
    """Waits for something that happens in another process."""
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def ended(started: subprocess.Popen[str], timeout_s: float = 60.0) -> Ran:
    """The end of a call that was begun."""
    out, err = started.communicate(timeout=timeout_s)
    assert "Traceback (most recent call last)" not in out + err, out + err
    return Ran(started.returncode, out, err)
