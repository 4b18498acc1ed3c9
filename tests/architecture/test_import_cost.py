"""What each command may import: a library that a command does not need must not slow its start.

Over bare Python Typer costs some 50 ms, rich 40, httpx 115, huggingface_hub 210. The commands run as real processes,
and Python itself lists what they import.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.run_mscli import call, environment

DOCTOR, DIAGNOSIS, HUB = "mscli.doctor", "mscli.diagnosis", "huggingface_hub"
HEAVY = ("httpx", "starlette", "uvicorn", HUB, "ollama", DOCTOR, DIAGNOSIS)
SHOWN = ("rich", "markdown_it", "prompt_toolkit")
CHAT = ("httpx", HUB, "ollama", DOCTOR, DIAGNOSIS, "yaml", "pynvml", "mscli.lifecycle", *SHOWN)
QUICK = (*HEAVY, "rich", "yaml", "pynvml")

# Command -> what it may not import, while one instance runs.
MAY_NOT_IMPORT: dict[str, tuple[str, ...]] = {
    "status --json": (*QUICK, "typer", "mscli.planning.make", "mscli.engines.table"),
    "status": (*QUICK, "mscli.planning.make", "mscli.engines.table"),
    "logs": (*QUICK, "mscli.planning.make", "mscli.engines.table"),
    "env": (*QUICK, "mscli.planning.make", "mscli.engines.table"),
    "down nothing": (*QUICK, "mscli.planning.make"),
    "up rehearsal": (*QUICK, "typer"),
    "up rehearsal --no-check -y": (*QUICK, "typer"),
    "up rehearsal --name other --dry-run": HEAVY,
    "up rehearsal --name other --no-wait": HEAVY,
    "pull rehearsal": HEAVY,
    "restart other": HEAVY,
    "chat hello": (*CHAT, "typer"),
    "chat rehearsal hello": (*CHAT, "typer"),
    "chat -i rehearsal hello": (*CHAT, "typer"),
    "chat hello --raw": CHAT,
    "check": (HUB, "ollama", DOCTOR, DIAGNOSIS, "yaml", "pynvml", "mscli.lifecycle"),
    "gpus": (*HEAVY, "yaml", "mscli.engines"),
    "doctor --log rehearsal": (HUB, "ollama", "httpx", DOCTOR),
    "--help": (*QUICK, "mscli.engines", "mscli.lifecycle"),
    "up --help": (*QUICK, "mscli.engines", "mscli.lifecycle"),
}


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a user whose instance runs."""
    folder: Path = tmp_path_factory.mktemp("user")
    env = environment(folder, folder / "home")
    assert call("up", "rehearsal", env=env).code == 0
    yield env
    call("down", "--all", env=env)


def imported(command: str, env: dict[str, str]) -> set[str]:
    """The modules that a process of this command imports."""
    argv = [sys.executable, "-X", "importtime", "-m", "mscli", *command.split()]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    assert "Traceback" not in done.stderr, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


@pytest.mark.parametrize("command", MAY_NOT_IMPORT)
def test_a_command_imports_only_what_it_needs(command: str, user: dict[str, str]) -> None:
    found = imported(command, user)
    assert "mscli" in found
    needless = {name for name in found for bad in MAY_NOT_IMPORT[command] if name == bad or name.startswith(f"{bad}.")}
    assert needless == set(), f"mscli {command} imports what it does not need"
