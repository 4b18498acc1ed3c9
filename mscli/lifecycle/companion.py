"""`companion.main(["KEY=VALUE", ..., "--", PROGRAM, ...])`: the parent of an instance's engine, which keeps it running.

It pumps the engine's output into the log and rotates that, watches its health, and starts it again when it ends or
hangs. What an end means, and whether another start is worth it, is asked of `mscli.lifecycle.restarts`, in a process of
its own: this one lives as long as the instance, and stays small (10 MB) and quick to start (5 ms over a bare Python) by
importing only what is built in: `subprocess` alone would cost 17 ms, `json` 8, `signal` and its enumerations 7.

An engine that ends before it was ever ready ends its companion with the same status: `mscli up` waits for that. So does
`down`, which signals both: the engine is not started again. A signal to the companion alone stops the engine by the
engine's own signals. Under systemd it says that it lives (WATCHDOG=1).
"""

from __future__ import annotations

import os
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    import socket
    from collections.abc import Callable, Mapping, Sequence
else:
    import _signal as signal
    import _socket as socket

MARK = "MSCLI_INSTANCE"
HOPELESS = 78  # EX_CONFIG: starting again is of no use
UNABLE = 127
_TICK_S = 0.25
_LEFTOVERS_S = 5.0
_JUDGE_S = 120.0
_BLOCK = 65_536
_UNJUDGED_S = 60.0


class Log:
    """The instance's log: appended to, and rotated once it is longer than `limit` bytes; `kept` older files stay."""

    def __init__(self, path: str, limit: int, kept: int) -> None:
        self._path, self._limit, self._kept = path, limit, kept
        self._open()

    def write(self, data: bytes) -> None:
        """Append; a full disk costs lines, not the engine. A file ends with a line's end, unless none comes at all."""
        try:
            excess = os.fstat(self._file).st_size + len(data) - self._limit
            cut = data.rfind(b"\n") + 1 or (len(data) if excess > self._limit else 0)
            if excess <= 0 or not cut:
                os.write(self._file, data)
                return
            os.write(self._file, data[:cut])
            self._rotate()
            os.write(self._file, data[cut:])
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
    """One engine, started again and again. `settings`: see `launch.companion_settings`; `argv`: the engine's."""

    def __init__(self, settings: Mapping[str, str], argv: Sequence[str]) -> None:
        self._settings, self._argv = settings, argv
        self._signals = [int(number) for number in settings["signals"].split()]
        self._log = Log(settings["log"], int(settings["log_bytes"]), int(settings["log_kept"]))
        self._asked_to_stop = self._ready_once = self._closed = False
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
                return end.status
            self._unmark("ready")
            wait_s = self._judged(end)
            if wait_s is None:
                return 0 if self._stopping() else HOPELESS
            self._log.note(f"starting again in {wait_s:.0f} s")
            self._pause(wait_s)
            if self._stopping():
                return 0

    def _one_run(self) -> End:
        """Start the engine and attend to it until it has ended."""
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        end = End(memory_kills())
        self._closed = False
        env = {key: value for key, value in os.environ.items() if not key.startswith(("NOTIFY_", "WATCHDOG_"))}
        try:
            end.pid = spawn(self._argv, env, {0: "/dev/null", 1: writing, 2: writing})
        except OSError as fault:
            self._log.note(f"{self._argv[0]} could not be executed: {fault.strerror}")
        finally:
            os.close(writing)
        watch = Watch(self._settings)
        while not end.seen():
            self._attend(reading)
            noted = self._noted("ready")
            watch.look(noted)
            if watch.ready and self._ready_once and not noted:  # the first time, who waits looks at more than health
                self._mark("ready")
            if self._stopping() or watch.hung:
                self._stop(end, reading)
        self._pump(reading)
        os.close(reading)
        end.served, end.hung = watch.ready or self._noted("ready"), watch.hung
        self._ready_once |= end.served
        return end

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

    def _stop(self, end: End, reading: int) -> None:
        """End the engine with its own signals, then SIGKILL; `down` sends them itself."""
        left_to_down = self._stopping() and not self._asked_to_stop
        for number in (*self._signals, signal.SIGKILL):
            if not left_to_down or number == signal.SIGKILL:
                send(end.pid, number)
                send(end.pid, signal.SIGCONT)
            deadline = time.monotonic() + float(self._settings["grace_s"])
            while not end.seen() and time.monotonic() < deadline:
                self._attend(reading)
            if end.seen():
                return

    def _end_leftovers(self) -> None:
        """Processes of the engine that outlived it, and hold its GPU memory and port."""
        deadline = time.monotonic() + _LEFTOVERS_S
        number = signal.SIGTERM
        while left := other_members():
            for pid in left:
                send(pid, number)
            if time.monotonic() > deadline:
                number = signal.SIGKILL
            time.sleep(0.05)

    def _judged(self, end: End) -> float | None:
        """Seconds until the next start; None: none is worth it. An end that cannot be judged is tried again."""
        how = "hung" if end.hung else "exit"
        self._log.note(f"the engine has ended ({how}, status {end.status})")
        try:
            said = ask((*self._settings["judge"].split("\n"), *end.words()), self._pause)
        except OSError as fault:
            self._log.note(f"the judge could not be executed: {fault.strerror}")
            return _UNJUDGED_S
        if said == b"never\n":
            return None
        try:
            return float(said)
        except ValueError:
            return _UNJUDGED_S

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


class End:
    """One run of the engine, and how it ended: `status` as of a `Popen`, `memory_kills` of the kernel before it."""

    def __init__(self, memory_kills: int | None) -> None:
        self.begun, self.memory_kills = time.monotonic(), memory_kills
        self.pid, self.status = 0, UNABLE
        self.served = self.hung = False
        self._ended = False

    def seen(self) -> bool:
        """True once the process has ended, or where there is none."""
        if self.pid and not self._ended:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._ended, self.status = True, os.waitstatus_to_exitcode(status)
        return self._ended or not self.pid

    def words(self) -> tuple[str, ...]:
        """What the judge is told."""
        kills = "" if self.memory_kills is None else str(self.memory_kills)
        how, served = "hung" if self.hung else "exit", "served" if self.served else "start"
        return str(self.status), how, served, f"{time.monotonic() - self.begun:.1f}", kills


class Watch:
    """Whether the engine answers: `ready` once it has, `hung` when it no longer does, or never did in its time."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._host, self._port, self._path = settings["host"], int(settings["port"]), settings["health_path"]
        self._every_s, self._silent_s = float(settings["watch_s"]), float(settings["silent_s"])
        self._start_s = float(settings["start_s"])
        self._answered, self._looked = time.monotonic(), 0.0
        self.ready = self.hung = False

    def look(self, noted: bool) -> None:
        """Ask for its health, when that is due. `noted`: somebody else has seen it ready."""
        self.ready |= noted
        now, every_s = time.monotonic(), self._every_s if self.ready else _TICK_S
        if now - self._looked < every_s:
            return
        self._looked = now
        if self._healthy():
            self.ready, self._answered = True, time.monotonic()
        self.hung = time.monotonic() - self._answered > (self._silent_s if self.ready else self._start_s)

    def _healthy(self) -> bool:
        try:
            family, kind, *_, address = socket.getaddrinfo(self._host, self._port, 0, socket.SOCK_STREAM)[0]
            link = socket.socket(family, kind)
        except OSError:
            return False
        try:
            link.settimeout(self._every_s)
            link.connect(address)
            link.send(f"GET {self._path} HTTP/1.1\r\nHost: {self._host}\r\nConnection: close\r\n\r\n".encode())
            return link.recv(64).split()[1:2] == [b"200"]
        except OSError:
            return False
        finally:
            link.close()


def spawn(argv: Sequence[str], env: Mapping[str, str], files: Mapping[int, str | int]) -> int:
    """Start a program, its descriptors `files`, a path opened for reading or another descriptor; its pid."""
    opened = [(os.POSIX_SPAWN_OPEN, at, file, os.O_RDONLY, 0) for at, file in files.items() if isinstance(file, str)]
    copied = [(os.POSIX_SPAWN_DUP2, file, at) for at, file in files.items() if isinstance(file, int)]
    return os.posix_spawnp(argv[0], list(argv), env, file_actions=[*opened, *copied])


def ask(argv: Sequence[str], pause: Callable[[float], None]) -> bytes:
    """What a program says, within _JUDGE_S; it is killed then."""
    reading, writing = os.pipe()
    pid = spawn(argv, os.environ, {0: "/dev/null", 1: writing})
    os.close(writing)
    deadline, said = time.monotonic() + _JUDGE_S, b""
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        if time.monotonic() > deadline:
            send(pid, signal.SIGKILL)
        pause(0.05)
    while block := os.read(reading, _BLOCK):
        said += block
    os.close(reading)
    return said


def send(pid: int, number: int) -> None:
    """Signal a process, if it is still there."""
    try:
        os.kill(pid, number)
    except OSError:
        return


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
        link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            link.sendto(text.encode(), f"\0{address[1:]}" if address[0] == "@" else address)
        except OSError:
            return
        finally:
            link.close()


def main(words: Sequence[str]) -> int:
    """Keep one engine running; the exit status. A signal that ended an engine which was never ready ends this too."""
    end = words.index("--")
    settings = dict(word.partition("=")[::2] for word in words[:end])
    status = Companion(settings, words[end + 1 :]).run()
    if status < 0:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the engine's core is the one worth having
        if -status not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status
