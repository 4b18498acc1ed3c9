"""Fixtures that use mscli as a user does: the real program in a process of its own, with a home of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Ran:
    """What one call printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def envelope(self) -> dict[str, Any]:
        """The one JSON object on standard output."""
        lines = self.out.strip().splitlines()
        assert len(lines) == 1, f"--json must print one line, and printed: {self.out!r} (stderr: {self.err!r})"
        return dict(json.loads(lines[0]))

    @property
    def data(self) -> Any:
        """`data` of a command that did what it was asked."""
        assert self.envelope["ok"], self.out
        return self.envelope["data"]

    @property
    def error(self) -> dict[str, Any]:
        """`error` of a command that failed."""
        assert not self.envelope["ok"], self.out
        return dict(self.envelope["error"])


Mscli = Callable[..., Ran]
PASSED = ("PATH", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV", "TMPDIR")


def environment(user: Path, home: Path, **more: str) -> dict[str, str]:
    """What a user has in his environment, without this machine's settings. `home`: his MSCLI_HOME."""
    passed = {key: value for key, value in os.environ.items() if key in PASSED}
    return {**passed, "HOME": str(user), "MSCLI_HOME": str(home), "HF_HUB_CACHE": str(user / "hub"), **more}


def call(
    *args: str,
    env: Mapping[str, str],
    stdin: str = "",
    timeout_s: float = 60,
    quotes_logs: bool = False,
    through: Sequence[str] = (),
) -> Ran:
    """One call of mscli, to its end. No traceback of its own is what a user should see, whatever happens.

    `quotes_logs`: its output may quote an engine's log that has one. `through`: a program that runs it, with its words.
    """
    done = subprocess.run(
        [*through, sys.executable, "-m", "mscli", *args],
        env=env,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    own = done.stderr if quotes_logs else done.stderr + done.stdout
    assert "Traceback (most recent call last)" not in own, own
    return Ran(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def gpu_llama(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A llama-server first on PATH, a script, which does not show what it was built for: it counts for GPUs, as the
    wheel that it starts does not."""
    program = tmp_path_factory.mktemp("gpu-llama") / "llama-server"
    told = "[ \"$1\" != --version ] || { echo 'version: 11669 (abcdef0)'; exit; }"
    program.write_text(f'#!/bin/sh\n{told}\nexec "{sys.executable}" -m mscli.engines.llamacpp.embedded "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An MSCLI_HOME that nobody has used before."""
    return tmp_path / "home"


@pytest.fixture
def user_env(home: Path, tmp_path: Path) -> dict[str, str]:
    """A user's environment without this machine's settings."""
    return environment(tmp_path, home)


def free_port() -> int:
    """A port that nobody uses, of those that the kernel hands out: no other test's instance chooses it."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address at which nothing listens as long as the test runs."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture
def mscli(user_env: dict[str, str], home: Path) -> Iterator[Mscli]:
    """Runs mscli; stops at the end whatever the test started."""

    def run(*args: str, env: Mapping[str, str] | None = None, stdin: str | None = None, timeout_s: float = 60) -> Ran:
        return call(*args, env={**user_env, **(env or {})}, stdin=stdin or "", timeout_s=timeout_s)

    yield run
    if (home / "state" / "instances").exists():
        run("down", "--all")
