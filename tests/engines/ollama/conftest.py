"""Fixtures around the stand-in for Ollama: a program on PATH, and servers that run already."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.ollama.standins import MAGISTRAL, SMALL, STANDIN, Scene, Server

START_TIMEOUT_S = 20.0


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """The registry holds the small model and Magistral, with little layers."""
    registry = {
        SMALL: {"layers": [3_000_000, 1_000], "capabilities": ["completion", "vision", "tools"]},
        MAGISTRAL: {"layers": [200_000], "capabilities": ["completion", "tools", "thinking"]},
    }
    made = Scene(tmp_path / "scene.json", {"registry": registry})
    made.play()
    return made


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """An executable named ollama in a folder of its own, and beside it a systemctl that knows no Ollama service."""
    path = tmp_path / "bin" / "ollama"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{STANDIN}" "$@"\n')
    path.with_name("systemctl").write_text("#!/bin/sh\necho LoadState=not-found\n")
    for made in path.parent.iterdir():
        made.chmod(0o755)
    return path


@pytest.fixture
def user_env(user_env: dict[str, str], scene: Scene, program: Path, nobody: str) -> dict[str, str]:
    """A user with the stand-in as `ollama` on PATH and no other, and no server that answers."""
    others = [folder for folder in user_env["PATH"].split(":") if not _holds_ollama(folder)]
    path = ":".join([str(program.parent), *others])
    return {**user_env, "OLLAMA_STANDIN": str(scene.path), "OLLAMA_HOST": nobody, "PATH": path}


def _holds_ollama(folder: str) -> bool:
    return folder not in ("/usr/bin", "/bin") and (Path(folder) / "ollama").exists()


@pytest.fixture
def start(program: Path, user_env: dict[str, str]) -> Iterator[Callable[..., Server]]:
    """A function that starts a server on a free port and waits until it listens; all end with the test."""
    running: list[subprocess.Popen[str]] = []

    def run(**env: str) -> Server:
        told = {**user_env, "OLLAMA_HOST": "127.0.0.1:0", **env}
        process = subprocess.Popen(
            [program, "serve"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=told
        )
        running.append(process)
        models = Path(told.get("OLLAMA_MODELS") or Path(told["HOME"]) / ".ollama" / "models")
        server = Server(process, 0, models)
        ready = threading.Event()
        threading.Thread(target=_follow, args=(server, ready), daemon=True).start()
        assert ready.wait(START_TIMEOUT_S), f"the stand-in did not start: {server.lines}"
        assert server.port, f"the stand-in ended: {server.lines}"
        return server

    yield run
    for process in running:
        process.terminate()  # it ends its runners; one that was killed leaves them behind
    for process in running:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _follow(server: Server, ready: threading.Event) -> None:
    assert server.process.stdout is not None
    for line in server.process.stdout:
        server.lines.append(line.rstrip("\n"))
        if "Listening on" in line:
            server.port = int(line.split("Listening on ")[1].split()[0].rpartition(":")[2])
            ready.set()
    ready.set()
