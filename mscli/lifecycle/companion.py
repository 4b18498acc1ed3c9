"""`python companion.py SETTINGS.json`: the parent of one instance's engine, which keeps it running.

It pumps the engine's output into the log and rotates that, watches its health, and starts it again when it ends or
hangs. What an end means, and whether another start is worth it, is asked of `mscli.lifecycle.restarts`, in a process of
its own: this one stays small (the standard library alone, about 12 MB) and lives as long as the instance.

An engine that ends before it was ever ready ends its companion with the same status: `mscli up` waits for that. So does
`down`, which signals both: the engine is not started again. A signal to the companion alone stops the engine by the
engine's own signals. Under systemd it says that it lives (WATCHDOG=1).
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time

TYPE_CHECKING = False  # `typing` itself would cost as much as all the rest
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

MARK = "MSCLI_INSTANCE"
HOPELESS = 78  # EX_CONFIG: starting again is of no use
UNABLE = 127
_TICK_S = 0.25
_LEFTOVERS_S = 5.0
_JUDGE_S = 120.0
_BLOCK = 65_536


class Log:
    """The instance's log: appended to, and rotated once it is longer than `limit` bytes; `kept` older files stay."""

    def __init__(self, path: str, limit: int, kept: int) -> None:
        self._path, self._limit, self._kept = path, limit, kept
        self._open()

    def write(self, data: bytes) -> None:
        """Append; a full disk costs lines, not the engine."""
        try:
            os.write(self._file, data)
            if os.fstat(self._file).st_size > self._limit and data.endswith(b"\n"):
                self._rotate()
        except OSError:
            return

    def note(self, text: str) -> None:
        """A line of the companion's own."""
        self.write(f"mscli: {text}\n".encode())

    def _open(self) -> None:
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        for output in (1, 2):
            os.dup2(self._file, output)

    def _rotate(self) -> None:
        """The file gets the next number, which it keeps: who follows the log finds its way from one to the next."""
        folder, name = os.path.split(self._path)
        numbers = [entry.rpartition(".")[2] for entry in os.listdir(folder) if entry.startswith(f"{name}.")]
        known = sorted(int(number) for number in numbers if number.isdigit())
        os.rename(self._path, f"{self._path}.{known[-1] + 1 if known else 1}")
        for number in known[: max(0, len(known) + 1 - self._kept)]:
            os.unlink(f"{self._path}.{number}")
        os.close(self._file)
        self._open()
        os.close(os.open(os.path.join(folder, "rotated"), os.O_WRONLY | os.O_CREAT, 0o600))


class Companion:
    """One engine, started again and again. `settings`: see `launch.companion_settings`."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings
        self._log = Log(settings["log"], settings["log_bytes"], settings["log_kept"])
        self._asked_to_stop = False
        self._ready_once = False
        self._closed = False
        self._pinged = 0.0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def run(self) -> int:
        """Keep the engine running; the exit status when it is not to be started again."""
        while True:
            end = self._one_run()
            self._end_leftovers()
            if self._stopping():
                return 0
            if not self._ready_once:
                return int(end["status"])
            self._unmark("ready")
            wait_s = self._judged(end)
            if wait_s is None:
                return 0 if self._stopping() else HOPELESS
            self._log.note(f"starting again in {wait_s:.0f} s")
            self._pause(wait_s)
            if self._stopping():
                return 0

    def _one_run(self) -> Mapping[str, Any]:
        """Start the engine and attend to it until it has ended: its status, how it ended, and when it was ready."""
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        begun, kills, self._closed = time.monotonic(), memory_kills(), False
        try:
            child = subprocess.Popen(
                self._settings["argv"], stdin=subprocess.DEVNULL, stdout=writing, stderr=writing, close_fds=False,
                env={key: value for key, value in os.environ.items() if not key.startswith(("NOTIFY_", "WATCHDOG_"))},
            )  # fmt: skip
        except OSError as fault:
            self._log.note(f"{self._settings['argv'][0]} could not be executed: {fault.strerror}")
            return {"status": UNABLE, "how": "exit", "served": False, "seconds": 0.0, "memory_kills": kills}
        finally:
            os.close(writing)
        watch = Watch(self._settings)
        while child.poll() is None:
            self._attend(reading)
            noted = self._noted("ready")
            watch.look(noted)
            if (
                watch.ready and self._ready_once and not noted
            ):  # the first time, who waits for it looks at more than its health
                self._mark("ready")
            if self._stopping() or watch.hung:
                self._stop(child, reading)
        self._pump(reading)
        os.close(reading)
        self._ready_once |= watch.ready
        ended = {"status": child.returncode, "how": "hung" if watch.hung else "exit", "served": watch.ready}
        return {**ended, "seconds": time.monotonic() - begun, "memory_kills": kills}

    def _attend(self, reading: int) -> None:
        if self._closed:  # the engine lives, and has closed its outputs
            time.sleep(_TICK_S)
        else:
            select.select([reading], [], [], _TICK_S)
            self._pump(reading)
        self._ping()

    def _pump(self, reading: int) -> None:
        """Everything that can be read now goes to the log."""
        try:
            while data := os.read(reading, _BLOCK):
                self._log.write(data)
            self._closed = True
        except BlockingIOError:
            return

    def _stop(self, child: subprocess.Popen[bytes], reading: int) -> None:
        """End the engine with its own signals, then SIGKILL; `down` sends them itself."""
        left_to_down = self._stopping() and not self._asked_to_stop
        for number in (*self._settings["signals"], signal.SIGKILL):
            if not left_to_down or number == signal.SIGKILL:
                child.send_signal(number)
                child.send_signal(signal.SIGCONT)
            deadline = time.monotonic() + self._settings["grace_s"]
            while child.poll() is None and time.monotonic() < deadline:
                self._attend(reading)
            if child.returncode is not None:
                return

    def _end_leftovers(self) -> None:
        """Processes of the engine that outlived it, and hold its GPU memory and port."""
        deadline = time.monotonic() + _LEFTOVERS_S
        number = signal.SIGTERM
        while left := other_members():
            for pid in left:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    continue
            if time.monotonic() > deadline:
                number = signal.SIGKILL
            time.sleep(0.05)

    def _judged(self, end: Mapping[str, Any]) -> float | None:
        """Seconds until the next start; None: none is worth it. An end that cannot be judged is tried again."""
        self._log.note(f"the engine has ended ({end['how']}, status {end['status']})")
        judge = subprocess.Popen(
            [*self._settings["judge"], json.dumps(end)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        deadline = time.monotonic() + _JUDGE_S
        while judge.poll() is None and time.monotonic() < deadline:
            self._pause(0.05)
        judge.kill()
        said, _ = judge.communicate()
        try:
            answer = json.loads(said)["restart_after_s"]
        except (ValueError, KeyError, TypeError):
            return 60.0
        return None if answer is None else float(answer)

    def _pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self._stopping() and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, _TICK_S))
            self._ping()

    def _stopping(self) -> bool:
        return self._asked_to_stop or self._noted("stopping")

    def _on_signal(self, *_: object) -> None:
        """Asked to end. `down` has noted that before: then it signals the engine too."""
        if not self._stopping():
            self._asked_to_stop = True
            self._mark("stopping")

    def _noted(self, name: str) -> bool:
        return os.path.exists(os.path.join(self._settings["folder"], name))

    def _mark(self, name: str) -> None:
        try:
            os.close(os.open(os.path.join(self._settings["folder"], name), os.O_WRONLY | os.O_CREAT, 0o600))
        except OSError:
            return

    def _unmark(self, name: str) -> None:
        try:
            os.unlink(os.path.join(self._settings["folder"], name))
        except OSError:
            return

    def _ping(self) -> None:
        """Tell systemd that this process is well, four times in the time after which it would be killed."""
        usec = int(os.environ.get("WATCHDOG_USEC") or 0)
        if usec and time.monotonic() - self._pinged > usec / 4e6:
            self._pinged = time.monotonic()
            notify("WATCHDOG=1")


class Watch:
    """Whether the engine answers: `ready` once it has, `hung` when it no longer does, or never did in its time."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings
        self._begun = self._answered = time.monotonic()
        self._looked = 0.0
        self.ready = self.hung = False

    def look(self, noted: bool) -> None:
        """Ask for its health, when that is due. `noted`: somebody else has seen it ready."""
        self.ready |= noted
        now, every_s = time.monotonic(), self._settings["watch_s"] if self.ready else _TICK_S
        if now - self._looked < every_s:
            return
        self._looked = now
        if self._healthy():
            self.ready, self._answered = True, time.monotonic()
        limit_s = self._settings["silent_s"] if self.ready else self._settings["start_s"]
        self.hung = time.monotonic() - self._answered > limit_s

    def _healthy(self) -> bool:
        host, port = self._settings["address"]
        try:
            with socket.create_connection((host, port), self._settings["watch_s"]) as link:
                path = self._settings["health_path"]
                link.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
                return link.recv(64).split()[1:2] == [b"200"]
        except OSError:
            return False


def other_members() -> list[int]:
    """The living processes of this instance but this one: of its session, or with its mark."""
    mark = f"{MARK}={os.environ.get(MARK)}".encode()
    return [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and int(pid) != os.getpid() and _ours(pid, mark)]


def _ours(pid: str, mark: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        if fields[0] in (b"Z", b"X"):
            return False
        if int(fields[3]) == os.getsid(0):
            return True
        with open(f"/proc/{pid}/environ", "rb") as file:
            return mark in file.read().split(b"\0")
    except OSError:
        return False


def memory_kills() -> int | None:
    """As `mscli.instances.process.memory_kills`."""
    try:
        with open("/proc/vmstat") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("oom_kill ")), None)
    except OSError:
        return None


def notify(text: str) -> None:
    """Tell systemd something, where it listens."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            try:
                link.sendto(text.encode(), f"\0{address[1:]}" if address[0] == "@" else address)
            except OSError:
                return


def main(settings_file: str) -> int:
    """Keep one engine running; the exit status. A signal that ended an engine which was never ready ends this too."""
    with open(settings_file) as file:
        settings = json.load(file)
    status = Companion(settings).run()
    if status < 0:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the engine's core is the one worth having
        if -status not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
