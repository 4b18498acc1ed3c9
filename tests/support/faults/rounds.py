"""One random round: commands of mscli on a few instances, with faults at random moments, and what is wrong afterwards.

Everything that a round does is drawn from its seed beforehand, so a round can be played again. What the machine makes
of it (who is faster) may differ from one time to the next.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from mscli.__main__ import run
from support import SUPPORT
from support.faults.commands import Command, Conditions, Program, begin
from support.faults.judge import Home, Wrong, judge_command, judge_end, judge_quiet
from support.run_mscli import environment

NAMES = ("one", "two", "three")
PORTS = 40
_FIRST, _SLOTS = 12_000, 400
_PROFILE = """\
title: A stand-in for random rounds
engine: llama.cpp
model: rehearsal
variant: q8_0
device: cpu
port: {port}
context: {{floor: 1024, target: 4096}}
kv_types: [f16]
images: 0
automatic: false
"""
_STRANGER = """
import socket, sys, time
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    link, _ = server.accept()
    if sys.argv[2] == "answers":
        link.recv(4096)
        link.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
        link.close()
"""
# Drawn in proportion. {name}: one of the instances.
_COMMANDS = {
    "up {name}": 24, "up {name} --replace": 8, "up {name} --no-wait": 6, "up {name} --supervise": 8,
    "up {name} --port {port}": 4, "down {name}": 14, "down": 3, "down --all": 6, "down {name} --purge": 6,
    "down --all --purge": 3, "down --all --force": 3, "restart {name}": 10, "restart": 2,
    "restart {name} --supervise": 3, "status": 8, "status --all": 3, "status {name}": 3, "check {name}": 2,
    "chat -i {name} hello": 5, "logs {name}": 4, "logs {name} -n 3": 2, "logs": 2, "env {name}": 4, "env": 2,
    "weights": 1, "doctor --fix -y": 1, "profiles": 1, "plan {name}": 1, "up {name} --dry-run": 2, "up nosuch": 1,
    "down nosuch": 1, "up {name} --ctx 2048": 2,
}  # fmt: skip
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL, signal.SIGKILL, signal.SIGINT)
_ENGINE_SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGINT, signal.SIGSTOP)


@cache
def reserved_ports() -> int:
    """The first of PORTS ports that no other process with rounds uses, as long as this one lives."""
    for number in range(_SLOTS):
        slot = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(OSError):
            slot.bind(f"\0mscli-rounds-{number}")
            _KEPT.append(slot)
            return _FIRST + number * 50
        slot.close()
    raise OSError("every range of ports is used")


_KEPT: list[socket.socket] = []


@dataclass(frozen=True)
class Fault:
    """Something that befalls a step after `after_s`. `what`: a key of FAULTS; `draw`: what the fault draws from."""

    what: str
    name: str
    after_s: float
    draw: int


@dataclass(frozen=True)
class Step:
    """Commands that run at once, each with its conditions and its moment, and the faults meanwhile."""

    commands: tuple[tuple[float, tuple[str, ...], Conditions], ...]
    faults: tuple[Fault, ...]

    @property
    def quiet(self) -> bool:
        """Nothing befalls its one command."""
        return len(self.commands) == 1 and not self.faults and self.commands[0][2].heard


@dataclass(frozen=True)
class Plan:
    """A round as it was drawn. `real`: the real engine serves, in place of the obedient one."""

    seed: int
    real: bool
    steps: tuple[Step, ...]


def drawn(seed: int) -> Plan:
    """The round of a seed."""
    rng = random.Random(seed)
    names = NAMES[: rng.choice((1, 2, 2, 3))]
    steps = [Step(((0.0, _words("up {name}", rng, names), Conditions()),), ())] if rng.random() < 0.6 else []
    steps += [_step(rng, names) for _ in range(rng.choice((1, 2, 2, 3)))]
    return Plan(seed, rng.random() < 0.04, tuple(steps))


def _step(rng: random.Random, names: tuple[str, ...]) -> Step:
    several = rng.choice((1, 1, 1, 2, 2, 3, 4))
    commands = tuple(
        (
            rng.choice((0.0, 0.0, rng.uniform(0, 0.6))),
            _words(rng.choices([*_COMMANDS], [*_COMMANDS.values()])[0], rng, names),
            _conditions(rng),
        )
        for _ in range(several)
    )
    moments = rng.choice((0, 1, 1, 2, 3))
    kinds, weights = zip(*((kind, weight) for kind, (weight, _) in FAULTS.items()), strict=True)
    faults = tuple(
        Fault(
            rng.choices(kinds, weights)[0],
            rng.choice(names),
            rng.choice((0.0, rng.uniform(0, 0.3), rng.uniform(0, 1.0))),
            rng.getrandbits(32),
        )
        for _ in range(moments)
    )
    return Step(commands, faults)


def _words(template: str, rng: random.Random, names: tuple[str, ...]) -> tuple[str, ...]:
    words = template.replace("{name}", rng.choice(names)).replace("{port}", f"+{rng.randrange(PORTS)}").split()
    if words[0] in ("up", "restart") and "--dry-run" not in words:
        words += ["--timeout", str(rng.choice((0.5, 3, 3, 6)))]
    if words[0] != "weights" and rng.random() < 0.5:
        words.append("--json")
    return tuple(words)


def _conditions(rng: random.Random) -> Conditions:
    odd = rng.random()
    return Conditions(
        closed=rng.choice(((0,), (1,), (2,), (1, 2), (0, 1, 2))) if odd < 0.06 else (),
        output=rng.choice(("full", "unread")) if 0.06 < odd < 0.1 else "file",
        most_bytes=rng.choice((0, 512, 2048, 4096, 8192)) if 0.1 < odd < 0.17 else None,
        umask=rng.choice((0o022, 0o022, 0, 0o077)),
        real=rng.random() < 0.1,
    )


@dataclass
class Round:
    """A round as it is played, in a folder of its own."""

    plan: Plan
    folder: Path
    first_port: int
    program: Program = run
    longest_s: float = 60.0
    story: list[str] = field(default_factory=list)
    wrongs: list[Wrong] = field(default_factory=list)
    commands: int = 0
    strangers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    spoilt: set[str] = field(default_factory=set)
    undo: list[Callable[[], object]] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.home = Home(self.folder)
        self.orders = self.folder / "orders"
        programs, profiles = self.folder / "bin", self.folder / "home" / "config" / "profiles"
        for made in (self.orders, programs, profiles, self.folder / "tmp", self.folder / "out"):
            made.mkdir(parents=True)
        (self.orders / "ready").touch()
        for number, name in enumerate(NAMES):
            (profiles / f"{name}.yaml").write_text(_PROFILE.format(port=self.first_port + number * 10))
        if not self.plan.real:
            text = (SUPPORT / "faults" / "obedient_server.py").read_text()
            (programs / "llama-server").write_text(text.replace("/usr/bin/env python3", f"{sys.executable} -S", 1))
            (programs / "llama-server").chmod(0o755)
        more = {"SERVER_ORDERS": str(self.orders), "TMPDIR": str(self.folder / "tmp"), "MSCLI_NO_UPDATE": "1"}
        self.env = environment(self.folder, self.folder / "home", **more)
        self.env["PATH"] = f"{programs}:{self.env['PATH']}"

    def play(self) -> list[Wrong]:
        """Play all of it; what was wrong. Leaves nothing alive. The folder goes where nothing was wrong."""
        try:
            for step in self.plan.steps:
                self._play(step)
            self._settle()
            self.wrongs += judge_end(self)
        finally:
            self._settle()
            for stranger in self.strangers:
                stranger.kill()
                stranger.wait()
            self.home.kill_all()
        if not self.wrongs:
            shutil.rmtree(self.folder)
        return self.wrongs

    def say(self, text: str) -> None:
        """Add a line to the story."""
        self.story.append(f"{time.monotonic() - self.begun:6.2f} {text}")

    def call(self, *args: str) -> Command:
        """One command to its end, with nothing that befalls it."""
        command = self._begin(args, Conditions())
        self._attend([command], [])
        return command

    def _play(self, step: Step) -> None:
        running: list[Command] = []
        due: list[tuple[float, Callable[[], object]]] = [
            (after, lambda args=args, conditions=conditions: running.append(self._begin(args, conditions)))
            for after, args, conditions in step.commands
        ]
        due += [(fault.after_s, lambda fault=fault: self._befall(fault, running)) for fault in step.faults]
        self._attend(running, sorted(due, key=lambda item: item[0]))
        for command in running:
            self.wrongs += judge_command(self, command)
        if step.quiet:
            self.wrongs += judge_quiet(self, running[0])

    def _begin(self, args: tuple[str, ...], conditions: Conditions) -> Command:
        words = tuple(str(self.first_port + int(word[1:])) if word.startswith("+") else word for word in args)
        self.commands += 1
        files = self.folder / "out" / str(self.commands)
        command = begin(words, conditions, self.env, files, self.program)
        odd = "" if conditions == Conditions() else f"  {conditions}"
        self.say(f"[{self.commands}] pid {command.pid}: mscli {' '.join(words)}{odd}")
        return command

    def _attend(self, running: list[Command], due: list[tuple[float, Callable[[], object]]]) -> None:
        begun = time.monotonic()
        while due or not all(command.ended() for command in running):
            now = time.monotonic() - begun
            while due and due[0][0] <= now:
                due.pop(0)[1]()
            if now > self.longest_s:
                for command in running:
                    if not command.ended():
                        self.wrongs.append(Wrong("hang", f"mscli {' '.join(command.args)} runs after {now:.0f} s"))
                        command.kill()
                due.clear()
            time.sleep(0.004)
        for command in running:
            self.say(f"    pid {command.pid}: mscli {' '.join(command.args)} = {command.code}, {command.seconds:.2f} s")

    def _befall(self, fault: Fault, running: list[Command]) -> None:
        done = FAULTS[fault.what][1](self, fault, running)
        self.say(f"  ! {fault.what} {fault.name}: {done}")

    def _settle(self) -> None:
        """Take back what faults have set up outside of mscli."""
        while self.undo:
            self.undo.pop()()
        for name in ("deaf", "die", "say", "stubborn"):
            (self.orders / name).unlink(missing_ok=True)
        (self.orders / "ready").touch()


def _send(pid: int, number: int) -> None:
    """Signal a process, if it still lives."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _signal_command(played: Round, fault: Fault, running: list[Command]) -> str:
    alive = [command for command in running if not command.ended()]
    if not alive:
        return "none runs"
    command, number = alive[fault.draw % len(alive)], _SIGNALS[fault.draw // 7 % len(_SIGNALS)]
    command.send(number)
    return f"{signal.Signals(number).name} to pid {command.pid}"


def _pause_command(played: Round, fault: Fault, running: list[Command]) -> str:
    alive = [command for command in running if not command.ended()]
    if not alive:
        return "none runs"
    pid = alive[fault.draw % len(alive)].pid
    _send(pid, signal.SIGSTOP)
    played.undo.append(subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -CONT {pid}"]).wait)
    return f"SIGSTOP to pid {pid} for 0.3 s"


def _signal_engine(played: Round, fault: Fault, running: list[Command]) -> str:
    engines = [process.pid for process in played.home.living() if process.name == fault.name]
    if not engines:
        return "none lives"
    pid, number = engines[fault.draw % len(engines)], _ENGINE_SIGNALS[fault.draw // 7 % len(_ENGINE_SIGNALS)]
    _send(pid, number)
    return f"{signal.Signals(number).name} to {pid}"


def _order(name: str, text: str = "") -> Callable[[Round, Fault, list[Command]], str]:
    def ordered(played: Round, fault: Fault, running: list[Command]) -> str:
        (played.orders / name).write_text(text)
        played.undo.append(lambda: (played.orders / name).unlink(missing_ok=True))
        return text or "yes"

    return ordered


def _not_ready(played: Round, fault: Fault, running: list[Command]) -> str:
    (played.orders / "ready").unlink(missing_ok=True)
    return "503"


def _die(played: Round, fault: Fault, running: list[Command]) -> str:
    (played.orders / "die").write_text(str(fault.draw % 3))
    return f"with {fault.draw % 3}"


def _live_again(played: Round, fault: Fault, running: list[Command]) -> str:
    (played.orders / "die").unlink(missing_ok=True)
    (played.orders / "ready").touch()
    return "yes"


def _grab_port(played: Round, fault: Fault, running: list[Command]) -> str:
    record = played.home.record(fault.name)
    port = record["port"] if record else played.first_port + NAMES.index(fault.name) * 10
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return f"{port} is taken"
    how = ("answers", "silent")[fault.draw % 2]
    stranger = subprocess.Popen(
        [sys.executable, "-S", "-c", _STRANGER, str(port), how],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    played.undo.append(lambda: (stranger.kill(), stranger.wait()))
    return f"{port}, {how}"


def _spoil(played: Round, fault: Fault, running: list[Command]) -> str:
    path = played.home.instances / fault.name / "record.json"
    record = played.home.record(fault.name)
    if record is None:
        return "no record"
    whole = path.read_bytes()
    texts = {
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "garbage": b"\x00\xff" * 100,
        "schema": whole.replace(b"mscli-record/1", b"mscli-record/9"),
        "other name": whole.replace(f'"name": "{fault.name}"'.encode(), b'"name": "../x"'),
        "no plan": json.dumps({**record, "plan": {}}).encode(),
        "deep": b"[" * 100_000,
    }
    kind = [*texts][fault.draw % len(texts)]
    path.write_bytes(texts[kind])
    played.spoilt.add(fault.name)
    return kind


def _reboot(played: Round, fault: Fault, running: list[Command]) -> str:
    """All processes go at once, and the kernel has another boot id; a pid of then is a stranger's now."""
    for command in running:
        command.send(signal.SIGKILL)
    played.home.kill_all()
    stranger = subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL)
    played.strangers.append(stranger)
    for name in NAMES:
        if record := played.home.record(name):
            for who in (record.get("identity"), record.get("starter")):
                if who:
                    who.update(boot_id="00000000-0000-4000-8000-000000000000", pid=stranger.pid)
            played.home.rewrite(name, record)
    return f"pid {stranger.pid} is a stranger's"


def _reused_pid(played: Round, fault: Fault, running: list[Command]) -> str:
    record = played.home.record(fault.name)
    if record is None or not record.get("identity"):
        return "no record"
    for process in played.home.living():
        if process.name == fault.name:
            _send(process.pid, signal.SIGKILL)
    stranger = subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL)
    played.strangers.append(stranger)
    record["identity"]["pid"] = stranger.pid
    played.home.rewrite(fault.name, record)
    return f"pid {stranger.pid} is a stranger's"


def _clock(played: Round, fault: Fault, running: list[Command]) -> str:
    """The clock was set back: what is recorded lies in the future, or far in the past."""
    seconds = (10.0**9, -(10.0**9))[fault.draw % 2]
    record = played.home.record(fault.name)
    if record is None:
        return "no record"
    record["since"] += seconds
    played.home.rewrite(fault.name, record)
    os.utime(played.home.instances / fault.name, (time.time() + seconds,) * 2)
    return f"{seconds:+.0f} s"


def _hold_lock(played: Round, fault: Fault, running: list[Command]) -> str:
    path = played.home.instances / ".lock"
    if not path.exists():
        return "no lock"
    with path.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return "it is held"
        holder = subprocess.Popen(["sleep", "0.7"], pass_fds=(lock.fileno(),))  # the lock goes with its last holder
    played.undo.append(holder.wait)
    return "for 0.7 s"


def _bad_state(played: Round, fault: Fault, running: list[Command]) -> str:
    state = played.folder / "home" / "state"
    path = state / ("starts.jsonl", "healed.jsonl", "observations.jsonl")[fault.draw % 3]
    if path.is_dir() or not state.is_dir():
        return "not there"
    path.unlink(missing_ok=True)
    kind = fault.draw // 7 % 3
    if kind == 0:
        path.mkdir()
    elif kind == 1:
        path.write_bytes(b'\xff{"a": [}\n' * 10)
    else:
        os.mkfifo(path)
    return f"{path.name}: {('a folder', 'garbage', 'a pipe')[kind]}"


def _bad_log(played: Round, fault: Fault, running: list[Command]) -> str:
    path = played.home.instances / fault.name / "log"
    if not path.is_file():
        return "no log"
    if fault.draw % 2:
        path.unlink()
        return "removed"
    with path.open("ab") as log:
        log.write(b"\x1b]52;c;AAAA\x07" + b"\xff" * 5000 + b"\nTraceback of the engine's\n" + b"x" * 100_000)
    return "control sequences and a long line"


Befall = Callable[[Round, Fault, list[Command]], str]
FAULTS: dict[str, tuple[int, Befall]] = {
    "signal to mscli": (20, _signal_command),
    "pause of mscli": (3, _pause_command),
    "signal to an engine": (16, _signal_engine),
    "engines are not ready": (4, _not_ready),
    "engines do not listen": (3, _order("deaf")),
    "engines die": (5, _die),
    "engines live again": (3, _live_again),
    "engines run out of memory": (2, _order("say", "ggml_backend_cuda_buffer_type_alloc_buffer: out of memory")),
    "engines ignore signals": (1, _order("stubborn")),
    "grabbed port": (6, _grab_port),
    "spoilt record": (5, _spoil),
    "reboot": (3, _reboot),
    "reused pid": (3, _reused_pid),
    "clock": (2, _clock),
    "held lock": (3, _hold_lock),
    "bad state file": (3, _bad_state),
    "bad log": (3, _bad_log),
}
