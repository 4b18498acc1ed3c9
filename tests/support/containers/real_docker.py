"""A real Docker engine for tests: started here, with folders, a bridge and a socket of its own, and ended with them.

It writes no rules of a firewall, so that neither this machine's nor another Docker's are touched; ports are published
by docker-proxy.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mscli.instances import process

START_S = 90.0
DOCKERD = "/usr/sbin:/sbin:/usr/bin:/usr/local/sbin"


def why_not() -> str | None:
    """What keeps a Docker engine from being started here."""
    if os.geteuid() != 0:
        return "only root can start a Docker engine (tests/run_engines docker as root)"
    path = f"{os.environ['PATH']}:{DOCKERD}"
    missing = [name for name in ("dockerd", "docker", "ip") if shutil.which(name, path=path) is None]
    return f"{', '.join(missing)} not installed: tests/run_engines docker does that" if missing else None


def wait_for(done: Callable[[], bool], otherwise: Callable[[], str], timeout_s: float = 30.0) -> None:
    """Waits until `done`; fails with `otherwise`."""
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.05)


class Dockerd:
    """One engine. `host`: what DOCKER_HOST must be."""

    def __init__(self, number: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mscli-dk", dir="/tmp"))  # sockets want short paths
        self.host = f"unix://{self.folder}/docker.sock"
        self.env = {**os.environ, "DOCKER_HOST": self.host}
        self._bridge = f"mdk{os.getpid() % 10**6}x{number}"
        self._subnet = f"10.{200 + number}.{os.getpid() % 250}.1/24"
        self._ran = False
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until it answers; skips the test where this machine cannot run one."""
        if not Path(f"/sys/class/net/{self._bridge}").exists():
            self._ip("link", "add", self._bridge, "type", "bridge")
            self._ip("addr", "add", self._subnet, "dev", self._bridge)
            self._ip("link", "set", self._bridge, "up")
        program = shutil.which("dockerd", path=f"{os.environ['PATH']}:{DOCKERD}")
        assert program is not None
        where = ["--data-root", "data", "--exec-root", "exec", "--pidfile", "pid", "--host", self.host]
        words = [word if not word.isalpha() else str(self.folder / word) for word in where]
        with (self.folder / "log").open("ab") as log:
            self._child = subprocess.Popen(
                [program, *words, "--bridge", self._bridge, "--iptables=false", "--ip6tables=false"],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + START_S
        while self.docker("info", "--format", "{{.ServerVersion}}", check=False) in ("", "\n"):
            if self._child.poll() is not None or time.monotonic() > deadline:
                tail = (self.folder / "log").read_text()[-800:]
                assert not self._ran, f"dockerd does not start again: {tail}"
                pytest.skip(f"dockerd does not start here: {tail}")
            time.sleep(0.1)
        self._ran = True

    def docker(self, *words: str, check: bool = True) -> str:
        """What the client prints."""
        done = subprocess.run(["docker", *words], env=self.env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ends the engine alone: SIGTERM takes its containers along, SIGKILL does not."""
        if self._child is not None:
            self._child.send_signal(number)
            self._child.wait(60)
            if number == signal.SIGKILL:  # its containerd goes on as well, and would keep a new one from starting
                beside = self.folder / "exec" / "containerd" / "containerd.pid"
                with contextlib.suppress(ProcessLookupError, FileNotFoundError, ValueError):
                    os.kill(int(beside.read_text()), signal.SIGKILL)
                    process.wait_death(int(beside.read_text()), 10)
                    beside.unlink()
                (self.folder / "pid").unlink(missing_ok=True)

    def close(self) -> None:
        """Ends it and removes everything of it."""
        if self._child is not None and self._child.poll() is None:
            for name in self.docker("ps", "-aq", check=False).split():
                self.docker("rm", "-f", name, check=False)
            self.stop()
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((m for m in mounts if m.startswith(str(self.folder))), reverse=True):
            subprocess.run(["umount", "-l", mount], check=False)
        self._ip("link", "delete", self._bridge, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def containers(self) -> list[str]:
        """Every container there is, running or not."""
        return self.docker("ps", "-a", "--format", "{{.Names}}").split()

    def volumes(self) -> list[str]:
        """Every volume there is."""
        return self.docker("volume", "ls", "-q").split()

    def processes(self, identity: str) -> list[int]:
        """The living processes in a container, by its id."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and identity in (entry / "cgroup").read_text():
                    seen = process.stat(int(entry.name))
                    found += [seen.pid] if seen and seen.state not in "ZX" else []
        return found

    def _ip(self, *words: str, check: bool = True) -> None:
        done = subprocess.run(["ip", *words], capture_output=True, text=True)
        if check and done.returncode != 0:
            pytest.skip(f"no bridge can be made here: ip {' '.join(words)}: {done.stderr.strip()}")
