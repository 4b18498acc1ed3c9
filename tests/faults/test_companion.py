"""The parent of a supervised engine: what it does when the engine ends, hangs, or is to end; and its log."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.faults.user import User, until

import mscli
from mscli.instances.log import LogTail

Start = Callable[..., subprocess.Popen[bytes]]
FOLDER = str(Path(mscli.__file__).parent / "lifecycle")
RUN = f"import sys; sys.path.append({FOLDER!r}); import companion; sys.exit(companion.main(sys.argv[1:]))"
TALKER = "for n in range(30_000): print('line', n, flush=n % 10 == 0)"


@pytest.fixture
def companion(tmp_path: Path) -> Iterator[Start]:
    """Starts a companion for any program, whose judge says what the test wants."""
    started: list[subprocess.Popen[bytes]] = []

    def start(
        *argv: str, after_s: float | None = 0.0, env: dict[str, str] | None = None, **changed: object
    ) -> subprocess.Popen[bytes]:
        folder = tmp_path / "instance"
        folder.mkdir(exist_ok=True)
        judge = (
            f"import sys; open({str(tmp_path / 'ends')!r}, 'a').write(' '.join(sys.argv[1:]) + chr(10)); "
            f"print({'never' if after_s is None else after_s!r})"
        )
        settings = {
            "folder": folder, "log": folder / "log", "log_bytes": 2**20, "log_kept": 3, "host": "127.0.0.1", "port": 1,
            "health_path": "/health", "signals": int(signal.SIGINT), "grace_s": 5.0,
            "judge": f"{sys.executable}\n-c\n{judge}", "watch_s": 0.2, "silent_s": 1.0, "start_s": 30.0, **changed,
        }  # fmt: skip
        words = [f"{key}={value}" for key, value in settings.items()]
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", RUN, *words, "--", *argv], start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=(tmp_path / "stderr").open("ab"),
            env={**os.environ, "MSCLI_INSTANCE": f"test:{os.urandom(8).hex()}", **(env or {})},
        )  # fmt: skip
        started.append(child)
        return child

    yield start
    for child in started:
        child.terminate()  # it ends also what is no longer of its group
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_an_engine_that_was_never_ready_ends_its_companion_alike(companion: Start) -> None:
    assert companion(sys.executable, "-c", "raise SystemExit(7)").wait(20) == 7
    assert companion(sys.executable, "-c", "import os; os.kill(os.getpid(), 9)").wait(20) == -9
    assert companion("/no/such/program").wait(20) == 127


def test_what_the_engine_says_is_rotated_and_no_line_is_lost(companion: Start, tmp_path: Path) -> None:
    folder = tmp_path / "instance"
    folder.mkdir()
    (folder / "log").touch()
    tail, heard = LogTail(folder / "log"), []
    child = companion(sys.executable, "-c", TALKER, log_bytes=4000, log_kept=90)
    while child.poll() is None:
        heard += tail.lines()
    heard += tail.lines()
    assert heard == [f"line {n}" for n in range(30_000)]
    files = sorted(folder.glob("log*"))
    assert len(files) > 3
    assert all(path.stat().st_size < 4000 + 65_536 for path in files)


@pytest.mark.parametrize(
    "said",
    ["b'line\\n' * 7 + b'begun'", "b'\\r 12 %'", "b'x' * 65_536"],
    ids=["never a whole line at the end", "a progress bar", "no line end at all"],
)
def test_a_log_is_rotated_wherever_its_lines_end(companion: Start, tmp_path: Path, said: str) -> None:
    talk = f"import os; [os.write(1, {said}) for _ in range(2_000_000 // len({said}))]"
    companion(sys.executable, "-c", talk, log_bytes=4000, log_kept=9).wait(30)
    files = list((tmp_path / "instance").glob("log*"))
    assert len(files) > 3
    assert all(path.stat().st_size < 2 * 4000 + 65_536 for path in files)


def test_the_disk_that_logs_may_take_is_bounded(companion: Start, tmp_path: Path) -> None:
    companion(sys.executable, "-c", TALKER, log_bytes=4000, log_kept=2).wait(30)
    assert len(list((tmp_path / "instance").glob("log*"))) == 3


def obedient(start: Start, user: User, port: int, **changed: object) -> subprocess.Popen[bytes]:
    """A companion of the engine that does what the test orders."""
    program = str(user.orders.parent / "bin" / "llama-server")
    env = {"SERVER_ORDERS": str(user.orders)}
    return start(program, "--port", str(port), env=env, port=port, **changed)


def ends(tmp_path: Path) -> list[list[str]]:
    """What the judge was told: status, how, phase, seconds, kills."""
    path = tmp_path / "ends"
    return [line.split(" ") for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize(
    ("number", "how", "status"),
    [(signal.SIGKILL, "exit", -9), (signal.SIGSTOP, "hung", -9), (signal.SIGTERM, "exit", -15)],
    ids=["killed", "halted", "terminated"],
)
def test_an_engine_that_ends_or_hangs_is_started_again(
    companion: Start, user: User, tmp_path: Path,
    number: signal.Signals, how: str, status: int,
) -> None:  # fmt: skip
    port = free_port()
    user.order("ready")
    obedient(companion, user, port)
    ready = tmp_path / "instance" / "ready"
    user.begun()
    until(lambda: answers(port))
    ready.touch()  # as `mscli up` does
    until(lambda: answers(port))
    os.kill(user.starts()[0], number)
    user.begun(2)
    until(ready.exists)
    assert answers(port)
    (end,) = ends(tmp_path)
    assert end[1:3] == [how, "served"]
    assert int(end[0]) in (status, -2)  # a halted engine heeds SIGINT once it goes on


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as link:
            link.sendall(b"GET /health HTTP/1.1\r\n\r\n")
            return b"200" in link.recv(64)
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["systemd", "down"])
def test_a_companion_that_is_to_end_ends_its_engine(companion: Start, user: User, tmp_path: Path, number: int) -> None:
    port = free_port()
    user.order("ready")
    child = obedient(companion, user, port)
    until(lambda: answers(port))
    os.kill(child.pid, number)
    assert child.wait(20) == 0
    assert user.engines() == []
    assert ends(tmp_path) == []
    assert (tmp_path / "instance" / "stopping").exists(), "that it was on purpose can be seen afterwards"


def test_workers_that_outlive_the_engine_are_ended_before_it_starts_again(companion: Start, tmp_path: Path) -> None:
    port, pids = free_port(), tmp_path / "pids"
    worker = "import time; time.sleep(600)"
    engine = (
        "import subprocess, sys, time, socket; port = int(sys.argv[1])\n"
        f"worker = subprocess.Popen([sys.executable, '-c', {worker!r}], start_new_session=True)\n"
        f"open({str(pids)!r}, 'a').write(f'{{worker.pid}}\\n')\n"
        "with socket.create_server(('127.0.0.1', port)) as server:\n"
        "    link, _ = server.accept(); link.recv(999); link.sendall(b'HTTP/1.1 200 OK\\r\\n\\r\\n'); link.close()\n"
        "time.sleep(0.5); sys.exit(0)\n"
    )
    companion(sys.executable, "-c", engine, str(port), port=port)
    until(lambda: pids.exists() and len(pids.read_text().splitlines()) > 1)
    first = int(pids.read_text().splitlines()[0])
    assert not Path(f"/proc/{first}").exists() or "Z" in Path(f"/proc/{first}/stat").read_text()
    assert ends(tmp_path)[0][0] == "0", "an engine that ends with 0 has ended too early all the same"


def test_systemd_hears_that_the_companion_lives_and_the_engine_does_not_speak_for_it(
    companion: Start, user: User, tmp_path: Path
) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(address))
        systemd.settimeout(20)
        port = free_port()
        program = str(user.orders.parent / "bin" / "llama-server")
        env = {"SERVER_ORDERS": str(user.orders), "NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "400000"}
        companion(program, "--port", str(port), env=env, port=port)
        assert [systemd.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        user.begun()
        (pid,) = user.starts()
        assert b"NOTIFY_SOCKET" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_an_address_that_cannot_be_resolved_does_not_end_the_companion(companion: Start) -> None:
    slow = "import time; time.sleep(1); raise SystemExit(7)"  # longer than until the first look at its health

    assert companion(sys.executable, "-c", slow, host="no-such-host.invalid").wait(30) == 7


def test_an_end_that_cannot_be_judged_is_followed_by_another_start(companion: Start, tmp_path: Path) -> None:
    folder = tmp_path / "instance"
    folder.mkdir()
    (folder / "ready").touch()
    child = companion(sys.executable, "-c", "raise SystemExit(7)", judge="/no/such/judge")
    (folder / "log").touch()
    until(lambda: "starting again in 60 s" in (folder / "log").read_text() or child.poll() is not None)
    child.terminate()

    assert child.wait(20) == 0
    assert "the judge could not be executed" in (folder / "log").read_text()
