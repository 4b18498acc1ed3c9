"""A plain `mscli up` is read without Typer, for its start: what it is asked for is the same as with Typer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from support.run_mscli import Ran, call, environment

LINES = (
    "--port 23456 rehearsal",
    "rehearsal --ctx 2048 --users 2 --images 1 --kv q8_0 --port 23456 --name mine",
    "--port 23456 --no-heal --no-require-gpu --replace rehearsal -y --offline --no-install",
    "rehearsal --engine llama.cpp --prefer context --for agents --port 23456",
    "rehearsal --host 127.0.0.2 --idle-stop 30m --template gguf --supervise --port 23456",
    "rehearsal --timeout 20 --no-wait --no-check --port 23456",
    "rehearsal --port=23456 --images 0",
    # refused
    "",
    "nosuch",
    "rehearsal another",
    "rehearsal --port 65536",
    "rehearsal --port 0x50",
    "rehearsal --port",
    "rehearsal --ctx -1",
    "rehearsal --no-offline",
    "rehearsal --no-port 1",
    "rehearsal --kv q3",
    "rehearsal --gateway --plain",
    "rehearsal --nam mine",
    "rehearsal --name -y",
    "rehearsal -n",
)


def planned(line: str, env: Mapping[str, str]) -> Ran:
    return call("up", *line.split(), "--dry-run", "--json", env=env)


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder: Path = tmp_path_factory.mktemp("user")
    return environment(folder, folder / "home")


@pytest.mark.parametrize("line", LINES)
def test_a_plain_start_is_read_as_typer_reads_it(line: str, user: dict[str, str]) -> None:
    plain, by_typer = planned(line, user), planned(line, {**user, "MSCLI_YES": "0"})
    assert (plain.code, _without_memory(plain.out)) == (by_typer.code, _without_memory(by_typer.out))


def _without_memory(out: str) -> str:
    """What differs from one moment to the next."""
    return re.sub(r"[\d.]+ [GM]iB free|[\d.]+ GiB of host memory", "", out)


def test_the_users_defaults_hold_for_a_plain_start(user: dict[str, str], tmp_path: Path) -> None:
    env = {**user, "MSCLI_HOME": str(tmp_path)}
    assert call("config", "set", "port", "23999", env=env).code == 0
    assert "23999" in planned("rehearsal", env).data["plan"]["command"]["argv"]
    assert "23998" in planned("rehearsal --port 23998", env).data["plan"]["command"]["argv"]
