"""Readiness: health against death, stall and the deadline; every server here is a real process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import SUPPORT

from mscli.diagnosis.matching import is_fatal
from mscli.engines.llamacpp.engine import LlamaCpp
from mscli.instances import process
from mscli.instances.log import LogTail
from mscli.instances.state import probe
from mscli.lifecycle.progress import Patience
from mscli.lifecycle.waiting import Wait, wait_ready

SERVER = SUPPORT / "lifecycle" / "misbehaving_server.py"
Waiter = Callable[..., tuple[Wait, list[str]]]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def wait_for(tmp_path: Path) -> Iterator[Waiter]:
    """Starts the server with given flags and waits for it as `mscli up` does."""
    children: list[subprocess.Popen[bytes]] = []

    def wait(*flags: str, patience: Patience) -> tuple[Wait, list[str]]:
        port, log, heard = free_port(), tmp_path / "log", []
        env = {**os.environ, process.MARK: "test:1"}
        child = process.spawn([sys.executable, str(SERVER), str(port), *flags], env, log, tmp_path)
        children.append(child)
        leader = process.identify(child.pid)
        assert leader is not None
        ended = wait_ready(
            child, leader, "test:1", LlamaCpp(), ("127.0.0.1", port), LogTail(log), patience,
            lambda _, line: heard.append(line), fatal=is_fatal,
        )  # fmt: skip
        return ended, heard

    yield wait
    for child in children:
        process.send([child.pid], signal.SIGKILL)
        child.wait(10)


def test_ready_after_a_load_that_answers_503(wait_for: Waiter) -> None:
    ended, heard = wait_for("--load", "0.5", patience=Patience(20, 20))
    assert ended.outcome == "ready"
    assert ended.seconds >= 0.4
    assert heard == ["loading the model"]


def test_a_death_is_seen_at_once_with_its_status(wait_for: Waiter) -> None:
    begun = time.monotonic()
    ended, _ = wait_for("--load", "60", "--die-after", "0.3", "--exit", "7", patience=Patience(60, 60))
    assert (ended.outcome, ended.exit_status) == ("died", 7)
    assert time.monotonic() - begun < 10


LOST = "RuntimeError: CUDA unknown error - this may be due to an incorrectly set up environment"


def test_an_engine_that_says_it_cannot_go_on_and_hangs_is_not_waited_for(wait_for: Waiter) -> None:
    ended, heard = wait_for("--mute", "--say", LOST, patience=Patience(120, 120))

    assert (ended.outcome, ended.exit_status) == ("failed", None)
    assert ended.seconds < 30
    assert heard == [LOST]


def test_one_that_ends_by_itself_afterwards_keeps_its_exit_status(wait_for: Waiter) -> None:
    ended, _ = wait_for("--mute", "--say", LOST, "--die-after", "0.5", "--exit", "7", patience=Patience(120, 120))

    assert (ended.outcome, ended.exit_status) == ("died", 7)


def test_one_that_answers_all_the_same_is_ready(wait_for: Waiter) -> None:
    ended, _ = wait_for("--say", LOST, "--load", "0.5", patience=Patience(20, 20))

    assert ended.outcome == "ready"


def test_an_error_that_it_may_overcome_is_waited_out(wait_for: Waiter) -> None:
    line = (
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 20480 MiB on device 0: cudaMalloc failed: out of memory"
    )
    ended, _ = wait_for("--say", line, "--load", "5", patience=Patience(60, 60))

    assert ended.outcome == "ready"


def test_exit_status_zero_is_a_death_too(wait_for: Waiter) -> None:
    ended, _ = wait_for("--load", "60", "--die-after", "0.2", "--exit", "0", patience=Patience(60, 60))
    assert (ended.outcome, ended.exit_status) == ("died", 0)


def test_the_deadline_ends_the_wait(wait_for: Waiter) -> None:
    ended, _ = wait_for("--load", "60", patience=Patience(timeout_s=1.0, stall_s=60))
    assert ended.outcome == "timeout"


def test_neither_log_nor_cpu_time_is_a_stall(wait_for: Waiter) -> None:
    ended, _ = wait_for("--mute", patience=Patience(timeout_s=60, stall_s=2.5))
    assert ended.outcome == "stalled"
    assert ended.seconds < 30


def test_a_busy_process_that_logs_nothing_is_no_stall(wait_for: Waiter) -> None:
    ended, _ = wait_for("--busy", patience=Patience(timeout_s=4.0, stall_s=2.5))
    assert ended.outcome == "timeout"


def test_probe_tells_refused_from_silent() -> None:
    assert probe("127.0.0.1", free_port(), "/health").reason == "refused"
    with socket.create_server(("127.0.0.1", 0)) as server:
        seen = probe("127.0.0.1", server.getsockname()[1], "/health", timeout_s=0.2)
    assert (seen.status, seen.reason) == (None, "timeout")


def test_a_log_tail_gives_whole_lines_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("before\n")
    tail = LogTail(path)
    with path.open("a") as log:
        log.write("one\ntw")
        log.flush()
        assert list(tail.lines()) == ["one"]
        log.write("o\n")
        log.flush()
        assert list(tail.lines()) == ["two"]
    assert list(tail.lines()) == []
