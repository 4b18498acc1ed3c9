"""Real processes and records as instances leave them behind, in a home of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mscli.instances.process import MARK, Identity, alive, boot_id, identify, stat
from mscli.instances.records import Record, Records
from mscli.paths import places
from support.instances.instance_records import IDLE, await_words, python, write_record

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
        child = python(code, log=log, env={**self.env, **env})
        self.started.append(child)
        await_words("up", log, child)
        return child

    def record(self, name: str, identity: Identity | None = None, **changed: object) -> Record:
        """A record of an instance that died with an earlier boot unless told otherwise."""
        who = identity or Identity(4711, 1, "an earlier boot")
        return write_record(self.records, name, who, f"{name}:0123", **changed)

    def crashed(self, name: str) -> int:
        """An instance whose leader was killed, and whose worker lives on; the worker's pid."""
        log = self.records.prepare(name) / "log"
        leader = self.process(LEADER, log, **{MARK: f"{name}:0123"})
        worker = int(await_words("child", log, leader).split("child ")[1].split()[0])
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
