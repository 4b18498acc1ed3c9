"""Real processes and records as instances leave them behind, in a home of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from mscli.catalog.model import Sampling
from mscli.lifecycle.process import MARK, Identity, alive, boot_id, identify, stat, wait_death
from mscli.lifecycle.records import Record, Records, Request
from mscli.lifecycle.shelf import SCHEMA
from mscli.paths import places
from mscli.planning.plan import Plan, Wish

PLAN = Plan(
    "rehearsal", "llama.cpp", "rehearsal", "q8_0", "safe", ("why",), 4096, "f16", 1, 0, 1, (), (), (), 0, 0,
)  # fmt: skip
IDLE = "import time; print('up', flush=True); time.sleep(600)"
# A leader with a worker that has lost its environment, and the mark with it, as one that sets its own title has.
LEADER = f"""
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {IDLE!r}], env={{"PATH": os.environ["PATH"]}})
print("child", child.pid, flush=True)
time.sleep(600)
"""


@dataclass
class Leftovers:
    """Starts processes with the environment that `mscli up` would give them; `stop` ends what is left of them."""

    env: Mapping[str, str]
    folder: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)
    others: list[int] = field(default_factory=list)

    @property
    def records(self) -> Records:
        return Records(places(dict(self.env)))

    def process(self, code: str, log: Path, **env: str) -> subprocess.Popen[bytes]:
        """A process in a session of its own, once it has said something."""
        with log.open("ab") as output:
            child = subprocess.Popen(
                [sys.executable, "-c", code], env={**self.env, **env}, stdout=output, stderr=output,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self.started.append(child)
        self.await_words(log, "up")
        return child

    def await_words(self, log: Path, words: str) -> str:
        deadline = time.monotonic() + 20
        while words not in log.read_text():
            assert time.monotonic() < deadline, f"the test's process never came up: {log.read_text()}"
            wait_death(self.started[-1].pid, 0.02)
        return log.read_text()

    def record(self, name: str, identity: Identity | None = None, **changed: object) -> Record:
        """A record as `mscli up` writes it, of an instance that died with an earlier boot unless told otherwise."""
        run_dir = self.records.prepare(name)
        (run_dir / "log").touch()
        who = identity or Identity(4711, 1, "an earlier boot")
        record = Record(
            SCHEMA, name, Request("rehearsal", None, None, None, Wish()), PLAN, "A model", True, "m",
            Sampling(None, None, None), None, "none", (), who, None, f"{name}:0123", "1.0", ("llama-server", "--jinja"),
            {}, "127.0.0.1", 1, "/health", None, run_dir / "log", (), 1.5,
        )  # fmt: skip
        record = replace(record, **changed)  # type: ignore[arg-type]
        self.records.save(record)
        return record

    def crashed(self, name: str) -> int:
        """An instance whose leader was killed, and whose worker lives on; the worker's pid."""
        log = self.records.prepare(name) / "log"
        leader = self.process(LEADER, log, **{MARK: f"{name}:0123"})
        worker = int(self.await_words(log, "child").split("child ")[1].split()[0])
        self.others.append(worker)
        who = identify(leader.pid)
        assert who is not None
        self.record(name, who)
        leader.kill()
        leader.wait(10)
        return worker

    def stop(self) -> None:
        for pid in self.others:
            if alive_pid(pid):
                os.kill(pid, 9)
        for child in self.started:
            child.kill()
            child.wait(10)


def alive_pid(pid: int) -> bool:
    who = identify(pid)
    return who is not None and alive(who)


def dead_identity() -> Identity:
    """Of a process of this boot that has ended."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    seen = stat(child.pid)
    child.communicate()
    assert seen is not None
    return Identity(child.pid, seen.start_ticks, boot_id())
