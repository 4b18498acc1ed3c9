"""Commands of mscli under conditions of a test's choice, many a second.

Most run in a fork of this process, in which mscli's modules are loaded already: a third of the time of a new program.
`real` ones are the program itself. Nothing else differs: arguments, environment, streams, limits and signals are the
command's own.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import pkgutil
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import mscli.cli
from mscli.__main__ import run

Program = Callable[[], None]
_LOADED = ("mscli.cli.", "mscli.lifecycle.", "mscli.chat.", "mscli.weights.", "mscli.engines.table")


@dataclass(frozen=True)
class Conditions:
    """How a command is run. `closed`: descriptors that are closed; `output`: where standard output goes: a file, the
    full device, or a pipe that nobody reads; `most_bytes`: no file may grow beyond it, as on a full disk."""

    closed: tuple[int, ...] = ()
    output: str = "file"
    most_bytes: int | None = None
    umask: int = 0o022
    real: bool = False

    @property
    def heard(self) -> bool:
        """Whether what it prints can be read."""
        return 1 not in self.closed and self.output == "file" and self.most_bytes is None


@dataclass
class Command:
    """One command. `signals`: what it was sent; `code` None: it runs still; minus a signal that ended it."""

    args: tuple[str, ...]
    conditions: Conditions
    pid: int
    files: Path
    begun: float = field(default_factory=time.monotonic)
    signals: list[int] = field(default_factory=list)
    code: int | None = None
    seconds: float = 0.0

    def ended(self) -> bool:
        """Whether it has ended; never waits."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code, self.seconds = os.waitstatus_to_exitcode(status), time.monotonic() - self.begun
        return self.code is not None

    def send(self, number: int) -> None:
        """Signal it, if it still runs."""
        if not self.ended():
            self.signals.append(number)
            os.kill(self.pid, number)  # not reaped yet: its pid is its own

    def kill(self) -> None:
        """End it, and wait for that."""
        self.send(signal.SIGKILL)
        while not self.ended():
            time.sleep(0.01)

    @property
    def out(self) -> str:
        return self.files.with_suffix(".out").read_text(errors="replace")

    @property
    def err(self) -> str:
        return self.files.with_suffix(".err").read_text(errors="replace")


def load() -> None:
    """Import what commands need, once, before they are forked."""
    for module in pkgutil.walk_packages(mscli.__path__, "mscli."):
        if module.name.startswith(_LOADED):
            importlib.import_module(module.name)
    gc.freeze()


# The exit status of a command that a Ctrl-C met before its program began, or when it had ended.
OUTSIDE = 98


def begin(
    args: tuple[str, ...], conditions: Conditions, env: Mapping[str, str], files: Path, program: Program = run
) -> Command:
    """Start a command whose output goes to `files`.out and .err. Returns at once."""
    sys.stdout.flush()
    sys.stderr.flush()
    for kind in (".out", ".err"):
        files.with_suffix(kind).touch()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    pid = os.fork()
    if pid == 0:
        try:
            _become(args, conditions, env, files, program)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(99)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return Command(args, conditions, pid, files)


def _become(
    args: tuple[str, ...], conditions: Conditions, env: Mapping[str, str], files: Path, program: Program
) -> None:
    """In the child: never returns."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    targets = {
        0: os.open(os.devnull, os.O_RDONLY),
        1: _output(conditions.output, files, flags),
        2: os.open(files.with_suffix(".err"), flags, 0o600),
    }
    for number, handle in targets.items():
        os.dup2(handle, number)
    os.closerange(3, 256)
    for number in conditions.closed:
        os.close(number)
    os.umask(conditions.umask)
    if conditions.most_bytes is not None:
        sys.dont_write_bytecode = True  # Python before 3.12.8 leaves half a .pyc where it cannot write the whole
        env = {**env, "PYTHONDONTWRITEBYTECODE": "1"}
        resource.setrlimit(resource.RLIMIT_FSIZE, (conditions.most_bytes, conditions.most_bytes))
    if conditions.real:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execve(sys.executable, [sys.executable, "-m", "mscli", *args], dict(env))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["mscli", *args]
    sys.stdin, sys.stdout, sys.stderr = (_stream(number) for number in range(3))
    try:
        status = _ended(program)
    except KeyboardInterrupt:
        status = OUTSIDE
    os._exit(status)


def _output(kind: str, files: Path, flags: int) -> int:
    if kind == "full":
        return os.open("/dev/full", os.O_WRONLY)
    if kind == "unread":
        reading, writing = os.pipe()
        os.close(reading)
        return writing
    return os.open(files.with_suffix(".out"), flags, 0o600)


def _stream(number: int) -> object:
    try:
        return os.fdopen(number, "r" if number == 0 else "w", closefd=False, errors="backslashreplace")
    except OSError:
        return None


def _ended(program: Program) -> int:
    """The exit status that Python itself would end with."""
    code: object = 0
    with contextlib.suppress(KeyboardInterrupt):  # one that came before the program began
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        program()
    except SystemExit as end:
        code = end.code
    except KeyboardInterrupt as fault:
        if fault.__traceback__ is not None and fault.__traceback__.tb_next is None:
            raise  # it did not come within the program
        traceback.print_exc()
        code = 130
    except BaseException:
        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            code = 120
    return code if isinstance(code, int) else 0 if code is None else 1
