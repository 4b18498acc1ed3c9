"""Instances that run or ran, as the doctor finds them: real processes, and records that point at them."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from mscli.instances.process import MARK, Identity, identify, members
from mscli.instances.records import Record, Records
from mscli.paths import places
from support.instances.instance_records import IDLE, await_words, python, write_record

SERVER = """
import http.server, sys
class Well(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Well)
print("up", flush=True)
server.serve_forever()
"""
# An engine whose server starts a worker that outlives it, as vLLM's EngineCore does.
PARENT = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {IDLE!r}])
time.sleep(600)
"""


@dataclass
class Instances:
    """Starts processes as `mscli up` would, and writes records of them."""

    home: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)
    marks: list[tuple[Identity, str]] = field(default_factory=list)

    @property
    def records(self) -> Records:
        return Records(places({"MSCLI_HOME": str(self.home)}))

    def run(self, name: str, code: str, *args: str) -> tuple[subprocess.Popen[bytes], Identity, str]:
        """A process in the folder of the instance `name`, with its mark, once it says "up"."""
        folder, mark = self.records.prepare(name), f"{name}:{len(self.started)}{os.getpid()}"
        (folder / "tmp").mkdir(exist_ok=True)
        env = {**os.environ, MARK: mark, "MSCLI_HOME": str(self.home), "TMPDIR": str(folder / "tmp")}
        child = python(code, *args, log=folder / "log", env=env, cwd=folder)
        self.started.append(child)
        await_words("up", folder / "log", child)
        identity = identify(child.pid)
        assert identity is not None
        self.marks.append((identity, mark))
        return child, identity, mark

    def record(self, name: str, identity: Identity | None, mark: str = "", **changed: object) -> Record:
        """A record as `mscli up` writes it."""
        return write_record(self.records, name, identity, mark or f"{name}:0", **changed)

    def serving(self, name: str, port: int, host: str = "127.0.0.1", **changed: object) -> subprocess.Popen[bytes]:
        """An instance that answers on `port`."""
        child, identity, mark = self.run(name, SERVER, host, str(port))
        self.record(name, identity, mark, port=port, host=host, **changed)
        return child

    def orphaned(self, name: str, **changed: object) -> tuple[int, ...]:
        """An instance whose server was killed and whose worker lives on: the pids that are left."""
        child, identity, mark = self.run(name, PARENT)
        self.record(name, identity, mark, **changed)
        child.kill()
        child.wait(10)
        return members(identity, mark)

    def stranger(self, folder: Path) -> subprocess.Popen[bytes]:
        """A shell of the user's that stands in `folder` and has nothing to do with mscli, once it does."""
        shell = subprocess.Popen(["/bin/sh", "-c", "echo up; read _"], cwd=folder, stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE)  # fmt: skip
        self.started.append(shell)
        assert shell.stdout is not None
        assert shell.stdout.readline() == b"up\n"
        return shell

    def stop(self) -> None:
        """Kill whatever is left of what was started here."""
        for identity, mark in self.marks:
            for pid in members(identity, mark):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for child in self.started:
            child.kill()
            child.wait(10)
