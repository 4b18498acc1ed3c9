"""The gateway's process when something in it fails that nobody expected."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import httpx
import pytest
from support.engines.gateways import gateway

from mscli.engines.serving.gateway import FAILED

Start = Callable[..., subprocess.Popen[str]]
DEAF = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); {}; time.sleep(60)"
OBEDIENT = "import os, time; {}; time.sleep(60)"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a gateway in front of a Python program."""
    started: list[subprocess.Popen[str]] = []

    def begin(port: int, kind: str, program: str, *flags: str) -> subprocess.Popen[str]:
        argv = gateway(port, kind, *flags, before=(sys.executable, "-c", program))
        started.append(subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, start_new_session=True))
        return started[-1]

    yield begin
    for child in started:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


def said(port: int, status: int) -> str:
    """What /health says once it answers with this status."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            answer = httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False)
        except httpx.TransportError:
            continue
        if answer.status_code == status:
            return str(answer.json()["status"])
    raise AssertionError(f"no answer with {status}")


def unanswerable(port: int) -> tuple[str, ...]:
    """Flags with which the watch of an HTTP engine raises what no engine's answer makes it raise."""
    return ("--engine-port", str(port), "--health-path", "/h\u00e9alth")


@pytest.mark.parametrize(
    ("kind", "first", "flags", "cause"),
    [
        pytest.param("openai", "", unanswerable(9), "UnicodeEncodeError", id="the watch of a server"),
        pytest.param("library", 'os.write(0, b"no JSON\\n")', (), "JSONDecodeError", id="a line that is no message"),
        pytest.param("library", 'os.write(0, b"{}\\n")', (), "KeyError", id="a message of nobody"),
    ],
)
def test_a_gateway_that_fails_says_why_and_ends(
    start: Start, kind: str, first: str, flags: tuple[str, ...], cause: str
) -> None:
    port = free_port()
    child = start(port, kind, DEAF.format(first or "pass"), *flags)
    health = said(port, 500)
    asked = httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json={"messages": []}, trust_env=False)
    assert child.stderr
    log = child.stderr.readline()

    assert (asked.status_code, cause in health, cause in asked.json()["error"]["message"]) == (500, True, True)
    assert log == f"error: {health}\n"
    assert child.wait(30) == FAILED


def test_a_gateway_that_fails_ends_its_engine(start: Start) -> None:
    child = start(free_port(), "library", OBEDIENT.format('os.write(0, b"no JSON\\n")'))

    assert child.wait(30) == FAILED
    with pytest.raises(ProcessLookupError):
        os.killpg(child.pid, 0)


@pytest.mark.parametrize(
    "last", ['os.write(0, b"{\\"rea"); os._exit(7)', "os._exit(7)"], ids=["half a line", "nothing"]
)
def test_an_engine_that_ends_in_the_middle_of_a_message_is_no_fault_of_the_gateway(start: Start, last: str) -> None:
    child = start(free_port(), "library", f"import os; {last}")

    assert child.wait(30) == 7
    assert child.stderr
    assert child.stderr.read() == ""


ODD_MODEL = """
import sys
from argparse import Namespace
from mscli.engines.serving.worker import Delta, run

class Odd:
    formats = ("text",)
    def reply(self, request):
        yield Delta(content="one ")
        raise OSError("the disk of the weights is gone")

run(Namespace(model="odd", alias="twin", context=9), Odd)
"""


@pytest.mark.parametrize("stream", [False, True])
def test_a_reply_that_fails_unexpectedly_ends_and_the_log_says_why(start: Start, stream: bool) -> None:
    port = free_port()
    child = start(port, "library", ODD_MODEL)
    said(port, 200)
    body = {"messages": [{"role": "user", "content": "hello"}], "stream": stream}
    answer = httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, trust_env=False, timeout=20)
    child.terminate()

    assert "OSError" in answer.text
    assert answer.status_code == (200 if stream else 500)
    assert "OSError: the disk of the weights is gone" in child.communicate(timeout=20)[1]


def test_a_signal_while_the_engine_is_started_ends_it_too() -> None:
    program = ("/bin/sh", "-c", "kill -TERM $PPID; exec sleep 60")
    argv = gateway(free_port(), "openai", "--engine-port", "9", before=program)
    child = subprocess.Popen(argv, start_new_session=True)
    try:
        assert child.wait(30) == -signal.SIGTERM
        with pytest.raises(ProcessLookupError):
            os.killpg(child.pid, 0)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
