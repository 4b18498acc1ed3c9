"""A user's defaults: set and shown by `mscli config`, honoured by the commands that take them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.own_files import profile_text

from mscli.cli.main import main

Cli = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MSCLI_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def cli(home: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs one command with --json: its exit code and its envelope."""

    def run(*words: str) -> tuple[int, dict[str, Any]]:
        code = main([*words, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


def test_what_is_set_is_kept_shown_and_unset_with_the_users_comments(cli: Cli, home: Path) -> None:
    file = home / "config" / "config.yaml"
    assert cli("config", "set", "port", "8010")[1]["data"]["value"] == 8010
    file.write_text(f"# the port that our proxy knows\n{file.read_text()}")
    assert cli("config", "set", "price", "1.20/day")[0] == 0
    assert cli("config", "list")[1]["data"] == {"file": str(file), "values": {"port": 8010, "price": "1.20/day"}}
    assert cli("config", "get", "port")[1]["data"]["value"] == 8010
    assert cli("config", "unset", "price")[0] == 0
    assert "# the port that our proxy knows" in file.read_text()
    assert cli("config", "unset", "port")[0] == 0
    assert cli("config")[1]["data"]["values"] == {}


WRONG = {
    ("prot", "8000"): ("unknown key", "Did you mean port?"),
    ("port", "many"): ("whole number", "config"),
    ("port", "99999"): ("out of range", "config"),
    ("profile", "rehersal"): ("there is no profile", "rehearsal"),
    ("price", "3/fortnight"): ("as a price", "1.20/day"),
    ("prefer", "quick"): ("unknown preference", "config"),
    ("host", "http://localhost"): ("leave out http", "config"),
}


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_what_a_command_would_refuse_is_refused_here(key: str, value: str, cli: Cli, home: Path) -> None:
    code, envelope = cli("config", "set", key, value)
    said, hint = WRONG[key, value]
    assert code == 2
    assert said in envelope["error"]["message"]
    assert hint in envelope["error"]["hint"]
    assert not (home / "config" / "config.yaml").exists()


def test_up_and_plan_take_the_defaults_and_the_command_line_wins(cli: Cli, tmp_path: Path) -> None:
    for key, value in {"profile": "rehearsal", "port": "8123", "host": "127.0.0.2", "users": "2"}.items():
        assert cli("config", "set", key, value)[0] == 0
    plan = cli("up", "--dry-run")[1]["data"]["plan"]
    argv = plan["command"]["argv"]
    assert (plan["profile"], plan["users"]) == ("rehearsal", 2)
    assert {"8123", "127.0.0.2"} <= set(argv)
    assert "8124" in cli("up", "--dry-run", "--port", "8124", "--users", "1")[1]["data"]["plan"]["command"]["argv"]
    own = tmp_path / "own.yaml"
    own.write_text(profile_text("rehearsal"))
    assert cli("up", "--dry-run", "--file", str(own))[1]["data"]["plan"]["profile"] == "own"
    assert cli("config", "set", "price", "2/hour")[0] == 0
    rows = cli("plan", "--on", "1x RTX 4090")[1]["data"]["profiles"]
    assert any(row.get("cost") for row in rows)


def test_a_broken_file_is_named_with_its_line(cli: Cli, home: Path) -> None:
    file = home / "config" / "config.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("port: 8000\nprofil: small-q4\n")
    code, envelope = cli("up", "--dry-run")
    assert (code, envelope["error"]["code"]) == (1, "profile_invalid")
    assert f"{file}:2" in envelope["error"]["message"]
    assert "did you mean 'profile'" in envelope["error"]["message"]
    assert "mscli config unset" in envelope["error"]["hint"]
