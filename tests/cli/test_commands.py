"""Every command of the tree: help, an example, --json; and faults of use, told in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from mscli.cli.main import main
from mscli.cli.tree import tree


def commands(node: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    node = node or typer.main.get_command(tree())
    children = getattr(node, "commands", {})
    if path and (not children or node.invoke_without_command):
        yield " ".join(path), node
    for name, child in children.items():
        if not child.hidden:
            yield from commands(child, (*path, name))


@pytest.mark.parametrize(("name", "command"), list(commands()), ids=[name for name, _ in commands()])
def test_every_command_has_help_an_example_and_json(name: str, command: Any) -> None:
    assert command.help, f"{name} has no help"
    assert "mscli " + name in (command.epilog or ""), f"{name} has no example"
    options = [option for parameter in command.params for option in parameter.opts]
    assert "--json" in options, f"{name} has no --json"
    silent = [parameter.name for parameter in command.params if not getattr(parameter, "help", None)]
    assert silent == [], f"{name}: no help for {silent}"


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSCLI_HOME", str(tmp_path / "home"))


WRONG = [
    (["nope"], "no such command"),
    (["up", "--prot", "1"], "no such option"),
    (["up", "rehearsal", "--port", "0"], "port"),
    (["up", "rehearsal", "--port", "99999"], "port"),
    (["up", "rehearsal", "--ctx", "many"], "ctx"),
    (["up", "rehearsal", "--ctx", "-5"], "ctx"),
    (["up", "rehersal"], "rehersal"),
    (["up", "rehearsal", "--name", "../x"], "is not a valid instance name"),
    (["up", "rehearsal", "--file", "x.yaml"], "cannot be used together"),
    (["up", "rehearsal", "--kv", "q9"], "q9"),
    (["profiles", "show", "nope"], "nope"),
]


@pytest.mark.parametrize(("argv", "word"), WRONG, ids=[" ".join(argv) for argv, _ in WRONG])
def test_wrong_use_is_told_and_exits_with_2(argv: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main([*argv, "--json"])
    printed = capsys.readouterr()
    envelope = json.loads(printed.out)
    assert envelope["schema"] == "mscli/1"
    assert envelope["ok"] is False
    assert code == 2, envelope
    assert word in envelope["error"]["message"]
    assert envelope["error"]["hint"]
    assert printed.err == ""


@pytest.mark.parametrize(
    ("typed", "said", "see"),
    [
        ("up --ctx", "option '--ctx' requires an argument", "up"),
        ("up --ctx many", "invalid value for '--ctx': 'many' is not a whole number", "up"),
        ("logs -n x", "invalid value for '-n' / '--lines': 'x' is not a whole number", "logs"),
        ("up --timeout soon", "invalid value for '--timeout': 'soon' is not a number", "up"),
        ("up rehearsal again", "unexpected argument: again", "up"),
        ("engines install", "missing argument 'ENGINE'", "engines install"),
    ],
)
def test_what_is_typed_wrong_is_said_in_plain_words_with_the_help_to_read(
    typed: str, said: str, see: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(typed.split()) == 2
    assert capsys.readouterr().err.splitlines() == [f"error: {said}", f"See: mscli {see} --help"]


def test_the_nearest_profile_is_offered(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["up", "rehersal"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "rehearsal" in printed.err


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("mscli ")
    assert main(["--help"]) == 0
    assert "profiles" in capsys.readouterr().out


def test_a_home_that_cannot_be_written_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("MSCLI_HOME", str(blocked / "below"))
    code = main(["up", "rehearsal", "--json"])
    error = json.loads(capsys.readouterr().out)["error"]
    assert (code, error["code"]) == (1, "file")
    assert str(blocked) in error["message"]


def test_a_reader_that_goes_away_is_no_fault(user_env: dict[str, str]) -> None:
    command = [sys.executable, "-m", "mscli", "profiles"]
    child = subprocess.Popen(command, env=user_env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.close()
    _, said = child.communicate(timeout=60)
    assert said == b""
    assert child.returncode == 0
