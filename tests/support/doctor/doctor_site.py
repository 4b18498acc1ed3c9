"""Sites for the doctor: a tree in place of /, programs on PATH, and a machine's driver.

The loader reads LD_LIBRARY_PATH when a process starts, so a child of its own looks at each set of driver libraries; it
stays for the tests that follow, since starting Python costs more than looking.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.machines.nvml_machines import Edit

# One request a line: the variables in force, and either a command line of mscli or the areas to look at.
CHILD = """
import contextlib, io, json, os, pathlib, sys
from mscli.cli.main import main
from mscli.doctor.checks.cuda import start
from mscli.doctor.checks.run import checks, examine
from mscli.doctor.checks.check import CheckContext
from mscli.instances.json_values import to_json
from mscli.paths import places

def look(areas, root, patience_s):
    ctx = CheckContext(places(), root=pathlib.Path(root))
    if patience_s:  # do not wait for a CUDA that hangs as long as a user would
        ctx.once("cuda_start", lambda: start(ctx, patience_s), of=start.__module__)
    return [dict(to_json(finding)) for finding in examine(ctx, checks(areas))]

def command(argv):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = main(argv)
    return [int(code), json.loads(out.getvalue())]

for line in sys.stdin:
    request = json.loads(line)
    os.environ.clear()
    os.environ.update(request["env"])
    answer = command(request["argv"]) if "argv" in request else look(*request["look"])
    print(json.dumps(answer), flush=True)
"""
WAITED_S = 60.0

RELEASE = "580.95.05"
KERNEL = "6.8.0-45-generic"


@dataclass(frozen=True)
class Found:
    """What the doctor found, by check."""

    findings: Sequence[dict[str, Any]]

    def of(self, check: str) -> list[dict[str, Any]]:
        found = [finding for finding in self.findings if finding["id"] == check]
        assert found, f"{check} said nothing: {self.findings}"
        return found

    def one(self, check: str) -> dict[str, Any]:
        (found,) = self.of(check)
        return found

    def verdict(self, check: str) -> tuple[str, str | None]:
        """Status and code of the only finding of a check."""
        found = self.one(check)
        return found["status"], found["code"]

    @property
    def fails(self) -> list[tuple[str, str | None]]:
        return [(finding["id"], finding["code"]) for finding in self.findings if finding["status"] == "fail"]

    @property
    def warnings(self) -> list[tuple[str, str | None]]:
        return [(finding["id"], finding["code"]) for finding in self.findings if finding["status"] == "warn"]

    @property
    def crashed(self) -> list[dict[str, Any]]:
        return [finding for finding in self.findings if finding["status"] == "crashed"]


@dataclass
class Site:
    """A machine's tree and programs. It starts as a bare Linux machine of good size, without any GPU on its bus."""

    root: Path
    programs: Path
    machine: Callable[..., dict[str, str]]
    home: Path
    ask: Callable[[dict[str, Any]], Any]

    def put(self, path: str, text: str = "") -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return target

    def program(self, name: str, script: str) -> None:
        target = self.programs / name
        target.write_text(f"#!/bin/sh\n{script}\n")
        target.chmod(0o755)

    def kernel_says(self, *lines: str) -> None:
        """Puts a dmesg on PATH that tells these lines."""
        (self.programs / "kernel.log").write_text("\n".join(lines) + "\n")
        self.program("dmesg", f'while read -r line; do echo "$line"; done < {self.programs}/kernel.log')

    def card(self, address: str = "0000:01:00.0", driver: str | None = "nvidia", kind: str = "0x030000") -> None:
        """An NVIDIA device on the PCI bus, bound to a kernel driver."""
        folder = f"sys/bus/pci/devices/{address}"
        self.put(f"{folder}/vendor", "0x10de\n")
        self.put(f"{folder}/class", f"{kind}\n")
        if driver:
            target = self.root / "sys/bus/pci/drivers" / driver
            target.mkdir(parents=True, exist_ok=True)
            (self.root / folder / "driver").symlink_to(target)

    def module(self, release: str = RELEASE) -> None:
        """NVIDIA's kernel module is loaded."""
        said = f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {release}  Release Build\nGCC version: gcc 13\n"
        self.put("proc/driver/nvidia/version", said)

    def wsl(self) -> None:
        self.put("proc/sys/kernel/osrelease", "5.15.167.4-microsoft-standard-WSL2\n")

    def container(self) -> None:
        self.put(".dockerenv")

    def look(
        self,
        name: str,
        areas: str,
        edit: Edit | None = None,
        env: Mapping[str, str] | None = None,
        cuda: bool = True,
        patience_s: float = 0.0,
    ) -> Found:
        """What the checks of these areas find here, with the driver of the machine `name`."""
        own = {"PATH": str(self.programs), "MSCLI_HOME": str(self.home), **self.machine(name, edit, cuda)}
        more = {**own, **(env or {})}
        if env and "LD_LIBRARY_PATH" in env:
            more["LD_LIBRARY_PATH"] = f"{env['LD_LIBRARY_PATH']}:{own['LD_LIBRARY_PATH']}"
        return Found(self.ask({"env": more, "look": [areas.split(","), str(self.root), patience_s]}))


class Children:
    """One child for each LD_LIBRARY_PATH, kept until the end."""

    def __init__(self) -> None:
        self._running: dict[str, subprocess.Popen[str]] = {}

    def ask(self, request: dict[str, Any]) -> Any:
        """What the child for these libraries answers."""
        libraries = request["env"].get("LD_LIBRARY_PATH", "")
        if libraries not in self._running:
            self._running[libraries] = subprocess.Popen(
                [sys.executable, "-c", CHILD], env={**os.environ, "LD_LIBRARY_PATH": libraries}, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
        process = self._running[libraries]
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline() if select.select([process.stdout], [], [], WAITED_S)[0] else ""
        if not answer:
            del self._running[libraries]
            process.kill()
            pytest.fail(f"the child gave no answer: {process.stderr.read()}")
        return json.loads(answer)

    def end(self) -> None:
        for process in self._running.values():
            process.communicate()  # closes its input, at which it ends


@pytest.fixture(scope="session")
def children() -> Iterator[Children]:
    made = Children()
    yield made
    made.end()


@pytest.fixture
def site(tmp_path: Path, machine: Callable[..., dict[str, str]], children: Children) -> Site:
    root, programs = tmp_path / "root", tmp_path / "bin"
    programs.mkdir()
    made = Site(root, programs, machine, tmp_path / "home", children.ask)
    made.put("proc/meminfo", "MemTotal: 65806948 kB\nMemAvailable: 50331648 kB\nSwapFree: 2097152 kB\n")
    made.put("proc/cpuinfo", "model name : A CPU\nflags : fpu sse2 avx f16c fma avx2\n")
    made.put("proc/sys/kernel/osrelease", f"{KERNEL}\n")
    made.put("proc/uptime", "90000.00 170000.00\n")
    made.put("proc/self/cgroup", "0::/\n")
    made.put("sys/class/net/eth0/address", "\n")
    (root / "sys/bus/pci/devices").mkdir(parents=True)
    (root / "dev/shm").mkdir(parents=True)
    made.kernel_says("[    0.000000] Linux version 6.8.0-45-generic")
    return made
