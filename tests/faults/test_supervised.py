"""`mscli up --supervise`: an instance that is kept running, and says how often it fell and why."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from support.faults.user import User, until

from mscli.diagnosis.causes import Cause
from mscli.instances.records import End
from mscli.lifecycle.restarts import MOST_ENDS, Ended, wait_s


def shown(user: User) -> dict[str, Any]:
    (instance,) = user.mscli("status", "--all", "--json").data["instances"]
    return dict(instance)


def supervised(user: User) -> int:
    """The pid of the engine of an instance that is kept running."""
    user.order("ready")
    up = user.mscli("up", "rehearsal", "--supervise", "--json")
    assert up.code == 0, up.out
    (pid,) = user.engines()
    return pid


def test_a_killed_engine_answers_again_and_status_tells_why_it_fell(user: User) -> None:
    pid = supervised(user)
    before = shown(user)
    assert (before["state"], before["restarts"], before["last_end"]) == ("ready", 0, None)
    os.kill(pid, signal.SIGKILL)
    user.begun(2)
    until(lambda: shown(user)["state"] == "ready")
    after = shown(user)
    assert (after["pid"], after["port"], after["restarts"]) == (before["pid"], before["port"], 1)
    assert after["last_end"] == "it was killed (signal 9), and not by the kernel for lack of memory"
    said = " ".join(user.mscli("status").out.split())
    assert "restarts 1 last exit it was killed (signal 9)" in said
    (stopped,) = user.mscli("down", "--json").data["stopped"]
    assert stopped["signal"] != "SIGKILL"
    assert (user.engines(), shown(user)["state"]) == ([], "stopped")
    assert len(user.starts()) == 2


@pytest.mark.rounds  # the kernel counts its kills for the whole machine: no other test may look at them meanwhile
def test_an_engine_that_the_kernel_kills_for_memory_answers_again_and_status_says_so(
    user: User, small_memory: Path
) -> None:
    pid = supervised(user)
    (small_memory / "cgroup.procs").write_text(str(pid))
    user.order("eat", str(pid))
    user.begun(2)
    until(lambda: shown(user)["state"] == "ready")
    assert shown(user)["restarts"] == 1
    assert shown(user)["last_end"] == "it was killed (signal 9), which is what the kernel does when RAM runs out"


@pytest.mark.rounds  # a minute without an answer counts as hung
@pytest.mark.parametrize("how", ["stopped", "deaf to requests"])
def test_an_engine_that_hangs_answers_again_and_status_says_so(user: User, how: str) -> None:
    pid = supervised(user)
    if how == "stopped":
        os.kill(pid, signal.SIGSTOP)
    else:
        (user.orders / "ready").unlink()
    assert shown(user)["state"] == "unresponsive"
    until(lambda: pid not in user.engines(), 120)
    user.order("ready")
    until(lambda: shown(user)["state"] == "ready")
    now = shown(user)
    assert (now["restarts"], now["last_end"]) == (1, "it stopped answering and was stopped")


def test_an_engine_that_ends_with_0_is_started_again(user: User) -> None:
    supervised(user)
    user.order("die", "0")
    until(lambda: not user.engines())
    (user.orders / "die").unlink()
    until(lambda: shown(user)["state"] == "ready")
    assert shown(user)["restarts"] >= 1


def test_an_end_that_would_only_repeat_itself_is_the_last(user: User) -> None:
    pid = supervised(user)
    user.order("say", "error: invalid argument: --teleport")
    user.order("die", "1")
    until(lambda: pid not in user.engines())
    until(lambda: shown(user)["state"] == "crashed", 60)
    now = shown(user)
    assert "--teleport" in now["last_end"]
    assert (user.engines(), now["restarts"]) == ([], 1), "one end after it had served, one at the start after that"


def test_the_companion_is_no_other_request_and_restart_keeps_it(user: User) -> None:
    supervised(user)
    assert user.mscli("up", "rehearsal", "--json").data["already"] is True
    assert user.mscli("restart", "rehearsal").code == 0
    (pid,) = user.engines()
    os.kill(pid, signal.SIGKILL)
    user.begun(3)
    until(lambda: shown(user)["state"] == "ready")


def test_a_start_that_fails_is_said_as_without_a_companion(user: User) -> None:
    user.order("die", "7")
    up = user.mscli("up", "rehearsal", "--supervise", "--json")
    assert (up.code, up.error["details"]["exit_status"]) == (1, 7)
    assert "main: died as it was told" in str(up.error["details"]["evidence"])
    assert user.mscli("status").code == 3


def test_a_companion_alone_that_is_killed_leaves_an_engine_that_is_named_and_stopped(user: User) -> None:
    pid = supervised(user)
    os.kill(shown(user)["pid"], signal.SIGKILL)
    until(lambda: shown(user)["state"] == "crashed")
    assert pid in shown(user)["orphans"]
    assert user.mscli("down").code == 0
    assert user.engines() == []


def test_the_companion_is_small(user: User) -> None:
    supervised(user)
    status = Path(f"/proc/{shown(user)['pid']}/status").read_text()
    resident_kib = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")))
    assert resident_kib < 15 * 1024


def end(at: float) -> End:
    return End(at, "exit", -9, True, "engine_crashed", "it was killed", (), 1.0)


@pytest.mark.parametrize(
    ("served", "cause", "earlier", "expected"),
    [
        (True, "engine_crashed", [], 1.0),
        (True, "engine_crashed", [990.0], 2.0),
        (True, "engine_crashed", [960.0, 970.0, 980.0, 990.0], 16.0),
        (True, "engine_crashed", [0.0, 10.0, 20.0], 1.0),
        (True, "engine_crashed", [990.0] * MOST_ENDS, None),
        (True, "oom_kv", [], 1.0),
        (False, "cli_flags", [990.0], None),
        (False, "oom_weights", [990.0], None),
        (False, "port", [990.0], 2.0),
    ],
)
def test_how_long_the_next_start_waits(served: bool, cause: str, earlier: list[float], expected: float | None) -> None:
    found = Cause(cause, "why", "what to do")
    assert wait_s(Ended(1, "exit", served, 5.0, None), found, [end(at) for at in earlier], now=1000.0) == expected
