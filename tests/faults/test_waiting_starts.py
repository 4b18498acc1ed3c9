"""Several calls of mscli about one instance that is starting."""

from __future__ import annotations

import signal
import socket
import threading
from pathlib import Path

import pytest
from support.faults.user import User, ended
from support.terminal import on_a_terminal


def test_a_start_that_is_stopped_meanwhile_is_neither_healed_nor_remembered(user: User) -> None:
    waiting = user.begin("up", "rehearsal", "--json")
    user.begun()
    assert user.mscli("down", "rehearsal").code == 0
    up = ended(waiting)
    assert (up.code, up.error["details"]["cause"]) == (1, "stopped")
    assert "was stopped by another mscli" in up.error["message"]
    assert (len(user.starts()), user.engines()) == (1, [])
    assert not (user.home / "state" / "healed.jsonl").exists()
    assert user.mscli("status").code == 3


def test_a_start_that_is_purged_meanwhile_leaves_nothing(user: User) -> None:
    waiting = user.begin("up", "rehearsal", "--json")
    user.begun()
    assert user.mscli("down", "rehearsal", "--purge").code == 0
    assert ended(waiting).error["details"]["cause"] == "stopped"
    assert not (user.home / "state" / "instances" / "rehearsal").exists()
    assert user.engines() == []


def test_the_same_request_waits_for_the_first(user: User) -> None:
    first = user.begin("up", "rehearsal", "--json")
    user.begun()
    second = user.begin("up", "rehearsal")
    third = user.mscli("up", "rehearsal", "--no-wait", "--json")
    assert (third.data["already"], third.data["instance"]["state"]) == (True, "starting")
    assert (first.poll(), second.poll()) == (None, None)
    user.order("ready")
    assert ended(first).data["already"] is False
    done = ended(second)
    assert done.code == 0
    assert f"already being started by PID {first.pid}" in done.err
    assert len(user.starts()) == 1


def test_who_waits_for_a_start_that_fails_is_told(user: User) -> None:
    first = user.begin("up", "rehearsal", "--json")
    user.begun()
    second = user.begin("up", "rehearsal", "--events")
    said = iter(second.stdout.readline, "")  # type: ignore[union-attr]
    assert any("already being started" in line for line in said)
    user.order("die", "1")
    assert ended(first).code == 1
    assert ended(second).code == 1
    assert user.engines() == []


def test_a_start_that_nobody_attends_to_any_more_is_waited_for_too(user: User) -> None:
    first = user.begin("up", "rehearsal")
    user.begun()
    first.kill()
    first.communicate()
    second = user.begin("up", "rehearsal", "--json")
    user.order("ready")
    assert ended(second).data["already"] is True
    assert len(user.starts()) == 1


def test_equal_requests_at_once_make_one_server(user: User) -> None:
    user.order("ready")
    calls = [user.begin("up", "rehearsal", "--json") for _ in range(6)]
    done = [ended(each, 120) for each in calls]
    assert [each.code for each in done] == [0] * 6
    assert [each.data["already"] for each in done].count(False) == 1
    assert len(user.starts()) == 1


def test_replacements_at_once_leave_one_server(user: User) -> None:
    user.order("ready")
    assert user.mscli("up", "rehearsal").code == 0
    calls = [user.begin("up", "rehearsal", "--replace", "--json") for _ in range(3)]
    codes = [ended(each, 120).code for each in calls]
    assert 0 in codes
    assert len(user.engines()) == 1
    (shown,) = user.mscli("status", "--json").data["instances"]
    assert (shown["state"], shown["pid"]) == ("ready", user.engines()[0])


@pytest.mark.parametrize("answers", [True, False], ids=["a stranger that answers", "a silent stranger"])
def test_a_stranger_on_the_port_is_neither_ready_nor_waited_for(user: User, answers: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    user.order("deaf")
    waiting = user.begin("up", "rehearsal", "--port", str(port), "--json")
    user.begun()
    with socket.create_server(("127.0.0.1", port)) as stranger:
        if answers:
            threading.Thread(target=_answer, args=(stranger,), daemon=True).start()
        (shown,) = user.mscli("status", "--json").data["instances"]
        assert shown["state"] == "starting"
        up = ended(waiting)
    assert (up.code, up.error["details"]["cause"]) == (1, "port")
    assert f"port {port} was taken by" in up.error["message"]
    assert user.engines() == []


def _answer(server: socket.socket) -> None:
    while True:
        try:
            link, _ = server.accept()
        except OSError:
            return
        link.recv(4096)
        link.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        link.close()


def test_an_engine_heeds_signals_that_the_shell_ignores(user: User) -> None:
    user.order("ready")
    started = user.begin("up", "rehearsal", prefix=["sh", "-c", 'trap "" INT QUIT TERM; exec "$@"', "sh"])
    assert ended(started).code == 0
    (pid,) = user.engines()
    status = Path(f"/proc/{pid}/status").read_text()
    ignored = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigIgn:")), 16)
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        assert not ignored & (1 << (number - 1)), f"the engine ignores {number.name}"
    (stopped,) = user.mscli("down", "--json").data["stopped"]
    assert stopped["signal"] != "SIGKILL"


def test_ctrl_c_while_the_engine_loads_says_that_it_goes_on_and_how_to_stop_it(user: User) -> None:
    with on_a_terminal("up", "rehearsal", env=user.env) as terminal:
        user.begun()  # it loads without end
        terminal.read_until(lambda: "loading" in terminal.raw, "that it loads")
        terminal.child.send_signal(signal.SIGINT)
        assert terminal.ended() == 130
        said = " ".join(terminal.shown.split())
    assert "interrupted; the server is still starting" in said
    assert "mscli down" in said
    assert user.mscli("status", "--json").data["instances"][0]["state"] == "starting"
    assert user.mscli("down").code == 0
