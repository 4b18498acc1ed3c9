"""Processes as the kernel sees them: who they are, who belongs together, how they are started and stopped.

A pid alone names nobody: it is reused, and a stopped child of a slow init stays a zombie that `kill(pid, 0)` calls
alive. So identity is (pid, start ticks, boot id), and the state letter in /proc/<pid>/stat decides who lives.

`python -m mscli.instances.process PROGRAM ...`: a program that ends with the process that asked for it. That one holds
the other end of this one's input. When it is killed the input closes, and the program is stopped a moment later: a
server notes how far a download is when its client goes, which takes it that moment.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mscli.frozen import frozen
from mscli.paths import MARK as MARK

if TYPE_CHECKING:
    import subprocess

_DEAD = "ZXx"


@frozen
class Identity:
    """One process, for good: `start_ticks` in clock ticks since boot, `boot_id` of the running kernel."""

    pid: int
    start_ticks: int
    boot_id: str


@frozen
class Stat:
    """What is read from /proc/<pid>/stat. `cpu_ticks`: user and system time together."""

    pid: int
    state: str
    group: int
    session: int
    cpu_ticks: int
    start_ticks: int


def boot_id() -> str:
    """The kernel's id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def stat(pid: int) -> Stat | None:
    """The state of `pid`, or None if there is no such process (any more)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (OSError, UnicodeDecodeError):
        return None
    fields = text.rpartition(")")[2].split()  # the command may hold spaces and brackets
    ticks = int(fields[11]) + int(fields[12])
    return Stat(pid, fields[0], int(fields[2]), int(fields[3]), ticks, int(fields[19]))


def identify(pid: int) -> Identity | None:
    """The identity of a process that runs now, or None."""
    seen = stat(pid)
    return Identity(pid, seen.start_ticks, boot_id()) if seen else None


def alive(who: Identity) -> bool:
    """True while exactly this process runs; a zombie, a reused pid and an earlier boot count as gone."""
    seen = stat(who.pid)
    if seen is None or seen.state in _DEAD or seen.start_ticks != who.start_ticks:
        return False
    return boot_id() == who.boot_id


def _pids() -> Iterator[int]:
    return (int(entry) for entry in os.listdir("/proc") if entry.isdigit())


def _marked(pid: int, mark: str) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return f"{MARK}={mark}".encode() in environment.split(b"\0")


def members(leader: Identity | None, mark: str) -> tuple[int, ...]:
    """The living processes of an instance: the leader's session, and whoever carries the instance's mark.

    Both, because a worker may leave the session, and one that sets its own title overwrites its environment.
    An engine's workers outlive a killed parent, so the leader itself need not be among them; None: it is not known.
    """
    if leader is None:
        return tuple(sorted(pid for pid in _pids() if _marked(pid, mark) and _lives(pid)))
    if boot_id() != leader.boot_id:
        return ()
    holder = stat(leader.pid)
    reused = holder is not None and holder.start_ticks != leader.start_ticks
    found = []
    for pid in _pids():
        seen = stat(pid)
        if seen is None or seen.state in _DEAD or seen.start_ticks < leader.start_ticks:
            continue
        if (seen.session == leader.pid and not reused) or _marked(pid, mark):
            found.append(pid)
    return tuple(sorted(found))


def group_lazily(leader: Identity, mark: str) -> Iterator[int]:
    """The leader, then the other members: these are only looked for where the leader is not what was wanted."""
    yield leader.pid
    yield from (pid for pid in members(leader, mark) if pid != leader.pid)


def _lives(pid: int) -> bool:
    seen = stat(pid)
    return seen is not None and seen.state not in _DEAD


def children(pid: int) -> int:
    """How many processes that `pid` has started live."""
    found: list[str] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            found += task.read_text().split()
    return sum(_lives(int(child)) for child in found)


def cpu_ticks(pids: Sequence[int]) -> int:
    """CPU time used so far by `pids`, in clock ticks: a sign of life of a process that logs nothing."""
    return sum(seen.cpu_ticks for pid in pids if (seen := stat(pid)))


def memory_kills() -> int | None:
    """How many processes the kernel has killed for want of memory since it was started; None where it does not tell."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)


def kernel_word(pid: int) -> str | None:
    """The kernel's last line about the end of a process (killed for want of memory, a segfault, a trap), without its
    time; None where it has none, or this user may not read its log. Waits at most 2 seconds."""
    import subprocess

    try:
        said = subprocess.run(["dmesg"], capture_output=True, timeout=2, check=False).stdout.decode(errors="replace")
    except (OSError, subprocess.TimeoutExpired):
        return None
    of_pid = re.compile(
        rf"Killed process {pid} \(|\w\[{pid}\]:? .*(?:segfault|trap|general protection)|traps: .*\[{pid}\]"
    )
    lines = [line for line in said.splitlines() if of_pid.search(line)]
    return re.sub(r"^\[[^\]]*\] *", "", lines[-1]) if lines else None


def describe(pid: int) -> str:
    """`PID 4711 (command line)` for messages to people, cut to a readable length."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return f"PID {pid}"
    words = raw.replace(b"\0", b" ").decode(errors="replace").strip()
    return f"PID {pid} ({words[:117] + '...' if len(words) > 120 else words or 'kernel thread'})"


def spawn(
    argv: Sequence[str], env: Mapping[str, str], log: Path, cwd: Path, inherited: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Start `argv` detached: own session, no terminal, both outputs appended to `log`. Returns at once.

    `inherited`: descriptors that the process keeps for as long as it lives. Raises OSError when the program cannot be
    executed.
    """
    import subprocess  # 4 ms that `mscli status` does not need

    appended = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    with os.fdopen(os.open(log, appended, 0o600), "ab") as output:
        return subprocess.Popen(
            list(argv), stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=dict(env), cwd=cwd,
            start_new_session=True, pass_fds=tuple(inherited), preexec_fn=_default_signals if _inherits() else None,
        )  # fmt: skip


# What subprocess itself sets right in a child: Python ignores them.
_OF_PYTHON = frozenset({signal.SIGPIPE, signal.SIGXFSZ})


def _ignored() -> set[int]:
    return {each for each in signal.valid_signals() if signal.getsignal(each) == signal.SIG_IGN}


def _inherits() -> bool:
    """Whether a child would begin with signals ignored or blocked. Only then Python's own code runs in it before its
    program: for that all of this process's memory is copied, 5 ms of each start."""
    return bool(_ignored() - _OF_PYTHON or signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def _default_signals() -> None:
    """In the child, before its program runs: no signal ignored or blocked.

    A shell ignores SIGINT in what it starts with `&`, and that is inherited: such an engine would not heed `down`.
    """
    for number in _ignored():
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def wait_death(pid: int, timeout_s: float) -> bool:
    """Wait at most `timeout_s` for `pid` to die; True if it is dead. Wakes at the moment of death."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    except OSError:  # no pidfd here (old kernel, seccomp): fall back to a plain pause
        time.sleep(timeout_s)
        seen = stat(pid)
        return seen is None or seen.state in _DEAD
    try:
        ready, _, _ = select.select([handle], [], [], timeout_s)
        return bool(ready)
    finally:
        os.close(handle)


def send(pids: Sequence[int], number: int) -> None:
    """Send a signal to each process; those already gone are passed over.

    Raises PermissionError for processes of another user.
    """
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


@frozen
class Halt:
    """How a group was stopped: the last signal needed (None: nothing lived), seconds, and the pids that still live."""

    signal: str | None
    seconds: float
    survivors: tuple[int, ...]


def halt(
    leader: Identity | None,
    mark: str,
    signals: Sequence[int],
    grace_s: float,
    listener: Callable[[str], None] = lambda _: None,
) -> Halt:
    """Stop every process of an instance: each of `signals` in turn, `grace_s` seconds after each, then SIGKILL.

    The group is looked at anew after every step, since an engine can lose a signal or leave workers behind.
    Waits at most len(signals) * grace_s + 5 seconds.
    """
    begun = time.monotonic()
    last: str | None = None
    for number in (*signals, signal.SIGKILL):
        living = members(leader, mark)
        if not living:
            break
        last = signal.Signals(number).name
        listener(f"sending {last} to {len(living)} process{'es' if len(living) > 1 else ''}")
        send(living, number)
        send(living, signal.SIGCONT)  # a stopped process keeps every signal but SIGKILL waiting
        _wait_empty(leader, mark, 5.0 if number == signal.SIGKILL else grace_s)
    return Halt(last, time.monotonic() - begun, members(leader, mark))


def _wait_empty(leader: Identity | None, mark: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while (living := members(leader, mark)) and (left := deadline - time.monotonic()) > 0:
        wait_death(living[0], min(left, 0.25))


SETTLE_S = 1.0
STOP_TIMEOUT_S = 10.0
END = b"end\n"
"""What is written to the input of `guard` to end the program at once."""


def guard(argv: Sequence[str]) -> int:
    """Run `argv` until it ends by itself or is no longer wanted; its exit status."""
    import subprocess
    import threading

    program = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    threading.Thread(target=_stop_unwanted, args=(program,), daemon=True).start()
    return program.wait()


def _stop_unwanted(program: subprocess.Popen[bytes]) -> None:
    import subprocess

    if sys.stdin.buffer.read() != END:
        time.sleep(SETTLE_S)
    program.terminate()
    try:
        program.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        program.kill()


if __name__ == "__main__":
    sys.exit(guard(sys.argv[1:]))
