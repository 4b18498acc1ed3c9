"""Takes the screens of every command, at 80x24, 120x40, 40 columns and piped, on the described machines.

    PYTHONPATH=tests python -m support.screens.take      write tests/screens/taken anew, then read it

Each machine has a process of its own, since the loader finds the stand-in of NVML when a process starts. In it the
kernel's files, the disk and the CPUs are those of one imagined host, and all commands run below /tmp/mscli-screens,
because the length of a path decides where a line ends.
"""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[2]
TAKEN = TESTS / "screens" / "taken"
ROOT = Path("/tmp/mscli-screens")
WIDTHS: dict[str, int | None] = {"80x24": 80, "120x40": 120, "40 columns": 40, "piped": None}
MACHINES = ("rtx4090", "rtx4090-x2", "h100-x8", "no-driver", "h100-mig", "rtx4090-x2-one-lost")
INSTANCES = "instances"
HELP = "help"
PLACES = (*MACHINES, INSTANCES, HELP)

ON_EACH_MACHINE = (
    *("gpus", "plan", "plan --all", "plan small-q4", "plan small-bf16", "plan --price 1.20/day"),
    *("profiles", "profiles --all", "engines", "up --dry-run", "up small-fp8 --dry-run", "doctor --only gpu"),
)
MEMINFO = "MemTotal: 65843212 kB\nMemFree: 50331648 kB\nMemAvailable: 58720256 kB\n"
CPUINFO = "processor: 0\nmodel name : AMD Ryzen 9 7950X 16-Core Processor\nflags : fpu sse avx avx2 fma f16c bmi2\n"
KERNEL = {
    "/proc/meminfo": MEMINFO,
    "/proc/cpuinfo": CPUINFO,
    "/proc/modules": "",
    "/proc/self/cgroup": "",
    "/proc/self/mountinfo": "",
    "/proc/1/environ": "",
    "/run/systemd/container": "",
    "/proc/sys/kernel/osrelease": "6.8.0-60-generic\n",
}
# What differs from run to run, by a pattern whose first group stays -> what stands for the rest, as many characters.
_VOLATILE = (
    (re.compile(r"()\b\d+\.\d s\b"), "0.0 s"),
    (re.compile(r"(\b2 h )[5-9] min"), "5 min"),  # an uptime, on a machine that is busy
    (re.compile(r"()\b\d\d:\d\d:\d\d(?=  every)"), "12:00:00"),
    (re.compile(r"()\bPID \d+"), "PID 123456"),
    (re.compile(r"(Python )3\.\d+\.\w+"), "3.11.0"),
    (re.compile(r"(--port )8\d\d\d\b"), "8000"),
    (re.compile(r"(127\.0\.0\.1:)8\d\d\d\b"), "8000"),
    (re.compile(r"(127\.0\.0\.1:)\d{5}\b"), "18000"),
    (re.compile(r"\b(small-q4) +\d+$", re.MULTILINE), "123456"),
)


class Stream(io.StringIO):
    """A terminal, or a pipe. What is written to it is kept."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def described_host() -> None:
    """Put the imagined host in the place of this one: the kernel's files, the disk and the CPUs."""
    read, exists = Path.read_text, Path.exists
    found = os.statvfs("/")
    room = os.statvfs_result((*found[:2], *[512 * 2**30 // found.f_frsize] * 3, *found[5:]))

    def read_text(path: Path, *args: Any, **kwargs: Any) -> str:
        return KERNEL[str(path)] if str(path) in KERNEL else read(path, *args, **kwargs)

    def no_marker(path: Path) -> bool:
        return False if str(path) in ("/.dockerenv", "/run/.containerenv") else exists(path)

    Path.read_text = read_text  # type: ignore[method-assign, assignment]
    Path.exists = no_marker  # type: ignore[method-assign, assignment]
    os.statvfs = lambda _: room  # type: ignore[assignment]
    os.sched_getaffinity = lambda _: set(range(32))


def one_screen(command: str, width: int | None) -> str:
    """What a terminal of that width (None: a pipe) shows after the command, and its exit code where it is not 0."""
    from mscli.cli.main import main

    kept = sys.stdout, sys.stderr, sys.stdin
    sys.stdout = sys.stderr = stream = Stream(width is not None)
    sys.stdin = io.StringIO("")
    os.environ["COLUMNS"] = str(width or 0)
    try:
        code = main(shlex.split(command))
    finally:
        sys.stdout, sys.stderr, sys.stdin = kept
    return steady(stream.getvalue()) + (f"[exit {code}]\n" if code else "")


def first_frame(command: str, width: int | None) -> str:
    """The first frame of a screen that redraws itself, on a terminal of its own, whole when the second one begins."""
    from support.terminal import on_a_terminal

    if width is None:
        return one_screen(command, width)
    cleared = "\x1b[H\x1b[J"
    with on_a_terminal(*shlex.split(command), env=os.environ, width=width) as terminal:
        terminal.read_until(lambda: terminal.raw.count(cleared) >= 2, "two frames")
        return steady(terminal.shown_in(terminal.raw.split(cleared)[1]))


def steady(text: str) -> str:
    """The text without what differs from run to run."""
    for pattern, same in _VOLATILE:
        text = pattern.sub(lambda found, same=same: found[1] + same.rjust(len(found[0]) - len(found[1])), text)
    return re.sub(r"/\S*/site-packages/", "/venv/site-packages/", text)


def screens(commands: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Each command with its screens at all widths, one below the other."""
    for command in commands:
        look = partial(first_frame if "--watch" in command else one_screen, command)
        if "--watch" in command:  # each waits for the second frame
            with ThreadPoolExecutor() as pool:
                taken = list(pool.map(look, WIDTHS.values()))
        else:
            taken = list(map(look, WIDTHS.values()))
        parts = [f"===== {name}\n{text}" for name, text in zip(WIDTHS, taken, strict=True)]
        yield command, f"$ mscli {command}\n" + "".join(parts)


def file_of(machine: str, command: str) -> Path:
    """Where the screens of a command on a machine are kept."""
    return TAKEN / machine / ((re.sub(r"[^\w.-]+", "_", command).strip("_") or "mscli") + ".txt")


def user_of(machine: str) -> Path:
    """The home of the user on a machine: the same path at every run."""
    return ROOT / machine


def environment(machine: str, more: Mapping[str, str]) -> dict[str, str]:
    """The variables of a process that takes the screens of a machine. `more`: those that put it on that machine."""
    user, programs = user_of(machine), ROOT / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    llama = programs / "llama-server"  # a script, which does not show what it was built for; no other program is there
    fresh = programs / f".{os.getpid()}"  # in its place at once: another place may be taken at the same time
    fresh.write_text("#!/bin/sh\necho 'version: 11669 (abcdef0)'\n")
    fresh.chmod(0o755)
    fresh.replace(llama)
    return {
        "PATH": str(programs), "HOME": str(user),
        "MSCLI_HOME": str(user / "mscli"), "HF_HUB_CACHE": str(user / "hub"),
        "TERM": "dumb", "LANG": "C.UTF-8", "PYTHONPATH": f"{TESTS.parent}:{TESTS}", **more,
    }  # fmt: skip


def on_machine(machine: str) -> dict[str, str]:
    """The variables that put a process on a described machine, or on one without a driver."""
    from support.machines.nvml_machines import DESCRIPTIONS, compiled

    if machine not in MACHINES or machine == "no-driver":
        hidden = ROOT / "no-driver" / "lib"
        hidden.mkdir(parents=True, exist_ok=True)
        (hidden / "libnvidia-ml.so.1").touch()
        return {"LD_LIBRARY_PATH": str(hidden)}
    library = compiled("nvml.c", "libnvidia-ml.so.1")
    return {"LD_LIBRARY_PATH": str(library), "MSCLI_TEST_MACHINE": str(DESCRIPTIONS / f"{machine}.json")}


def taken_on(place: str) -> dict[str, str]:
    """All screens of a place, taken now, by command."""
    user_of(place).mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "support.screens.take", place]
    env = environment(place, on_machine(place))
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def write(place: str) -> None:
    """Take the screens of a place anew and keep them."""
    shutil.rmtree(TAKEN / place, ignore_errors=True)
    for command, text in taken_on(place).items():
        path = file_of(place, command)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def take_here(place: str) -> None:
    """Take the screens in this process, which runs on the machine, and print them as JSON."""
    described_host()
    wanted = ON_EACH_MACHINE
    if place == HELP:
        from mscli.cli.help import commands

        wanted = ("help", *(f"{path} --help" for path in commands()))
    if place == INSTANCES:
        from support.screens.instances import COMMANDS, prepare

        prepare(user_of(place))
        wanted = COMMANDS
    json.dump(dict(screens(wanted)), sys.__stdout__ or sys.stdout)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        take_here(sys.argv[1])
    else:
        for each in PLACES:
            write(each)
