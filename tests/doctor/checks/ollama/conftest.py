"""A user whose Ollama is the stand-in, beside a systemctl and a journalctl that say what a test lets them say."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import SUPPORT
from support.ollama.ollama_user import User, Visit, play

from mscli.doctor.checks.check import CheckContext, Finding
from mscli.doctor.checks.run import checks, examine
from mscli.paths import places

STANDIN = SUPPORT / "ollama" / "standin"
START_TIMEOUT_S = 20.0


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> User:
    """A user with `ollama` on PATH, no service, and nobody listening where clients look; this process is that user."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("CUDA_VISIBLE_DEVICES", *(name for name in os.environ if name.startswith("OLLAMA_"))):
        monkeypatch.delenv(name, raising=False)
    made = User(folder, {}, tmp_path)
    made.program("ollama", f'exec "{sys.executable}" -S "{STANDIN}" "$@"')
    made.program("systemctl", "echo LoadState=not-found")
    made.program("journalctl", "echo '-- No entries --'")
    play(tmp_path / "scene.json")
    changed = {"HOME": str(tmp_path), "MSCLI_HOME": str(tmp_path / "home"), "OLLAMA_STANDIN": f"{tmp_path}/scene.json"}
    for name, value in {**changed, "PATH": f"{folder}:{os.environ['PATH']}"}.items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture
def start(user: User) -> Iterator[Callable[..., tuple[str, int]]]:
    """A function that starts a server and returns its address and pid once it listens; all end with the test."""
    running: list[subprocess.Popen[str]] = []

    def run(**env: str) -> tuple[str, int]:
        told = {**os.environ, "OLLAMA_HOST": "127.0.0.1:0", **env}
        process = subprocess.Popen([user.bin / "ollama", "serve"], stderr=subprocess.PIPE, text=True, env=told)
        running.append(process)
        found: list[str] = []
        ready = threading.Event()
        threading.Thread(target=_follow, args=(process, found, ready), daemon=True).start()
        assert ready.wait(START_TIMEOUT_S)
        assert found, "the stand-in ended"
        return found[0], process.pid

    yield run
    for process in running:
        process.kill()
        process.wait()


def _follow(process: subprocess.Popen[str], found: list[str], ready: threading.Event) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if "Listening on" in line:
            found.append(line.split("Listening on ")[1].split()[0])
            ready.set()
    ready.set()


@pytest.fixture
def visit(user: User, monkeypatch: pytest.MonkeyPatch) -> Visit:
    """Runs the checks of Ollama for the user: findings by the check's name. `gpus`: an inventory in place of NVML's."""

    def run(host: str | None = None, ctx: CheckContext | None = None, **env: str) -> dict[str, list[Finding]]:
        if host:
            monkeypatch.setenv("OLLAMA_HOST", host)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        seen = ctx or CheckContext(places(), env=dict(os.environ))
        found: dict[str, list[Finding]] = {}
        for finding in examine(seen, checks(("ollama",))):
            assert finding.status != "crashed", finding.seen
            found.setdefault(finding.id.removeprefix("ollama."), []).append(finding)
        return found

    return run
