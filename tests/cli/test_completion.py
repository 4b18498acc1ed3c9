"""Completion, as a TAB in real shells shows it, and what is offered for each kind of word."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from support.terminal import Terminal

from mscli.cli.completion import candidates
from mscli.cli.help import commands

# In each shell `mscli` is a function that shows its arguments, so that a test sees what the TAB has made of the line.
SHOWS = 'mscli() { if [ "$1" = __complete ]; then command mscli "$@"; else printf "<%s>" "$@"; echo; fi; }\n'
SHELLS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "bash": (("--norc", "--noprofile", "-i"), f'eval "$(mscli completion bash)"\n{SHOWS}'),
    "zsh": (("-f", "-i"), f'autoload -U compinit; compinit -D; eval "$(mscli completion zsh)"\n{SHOWS}'),
    "fish": (
        ("--no-config", "-i"),
        "mscli completion fish | source\nfunction mscli; if test $argv[1] = __complete; command mscli $argv; "
        'else; printf "<%s>" $argv; echo; end; end\n',
    ),
}


class Shell(Terminal):
    """A shell on a terminal of its own."""

    def __init__(self, name: str, env: Mapping[str, str], folder: Path) -> None:
        super().__init__([name, *SHELLS[name][0]], env, folder)
        self.press(SHELLS[name][1] + "echo READ''Y\n")
        self.until("READY")


@pytest.fixture(scope="module", params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    if shutil.which(request.param) is None:
        pytest.skip(f"there is no {request.param} on this machine")
    folder = tmp_path_factory.mktemp("shell")
    (folder / "home/state/instances/mine").mkdir(parents=True)
    (folder / "home/config/profiles").mkdir(parents=True)
    (folder / "home/config/profiles/nightly.yaml").touch()
    (folder / "weights-for-you").mkdir()
    program = folder / "bin" / "mscli"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mscli "$@"\n')
    program.chmod(0o755)
    env = {
        "PATH": f"{program.parent}:{os.environ['PATH']}", "HOME": str(folder), "MSCLI_HOME": str(folder / "home"),
        "TERM": "xterm", "LANG": "C.UTF-8", "PYTHONPATH": str(Path(__file__).parents[2]),
    }  # fmt: skip
    made = Shell(request.param, env, folder)
    yield made
    made.close()


LINES = {
    "a command": ("mscli statu\t\n", "<status>"),
    "a sub-command": ("mscli weights pr\t\n", "<weights><prune>"),
    "an option": ("mscli up --dry\t\n", "<up><--dry-run>"),
    "a profile": ("mscli up rehea\t\n", "<up><rehearsal>"),
    "a profile of one's own": ("mscli plan night\t\n", "<plan><nightly>"),
    "a model": ("mscli up mistral-small-3.1\t\n", "<up><mistral-small-3.1>"),
    "an instance": ("mscli down mi\t\n", "<down><mine>"),
    "an engine": ("mscli up --engine olla\t\n", "<up><--engine><ollama>"),
    "a value after =": ("mscli up --engine=olla\t\n", "<up><--engine=ollama>"),
    "a cause code": ("mscli help oom_k\t\n", "<help><oom_kv>"),
    "an area": ("mscli doctor --only netw\t\n", "<doctor><--only><network>"),
    "a folder": ("mscli pull rehearsal --to weights-f\t\n", "<pull><rehearsal><--to><weights-for-you"),
    "another tool's word": ("mscli stop mi\t\n", "<stop><mine>"),
}


@pytest.mark.parametrize(("typed", "ran"), LINES.values(), ids=LINES)
def test_a_tab_completes(shell: Shell, typed: str, ran: str) -> None:
    shell.press(typed)
    shell.until(ran)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSCLI_HOME", str(tmp_path / "home"))


def words(*line: str) -> set[str]:
    return {word for word, _ in candidates(line)}


@pytest.mark.parametrize("path", commands())
def test_every_command_is_offered_with_its_options_and_what_it_does(path: str) -> None:
    *before, name = path.split()
    offered = dict(candidates([*before, name]))
    assert offered[name] == commands()[path]["summary"]
    flags = {flag for option in commands()[path]["options"] for flag in option["flags"] if flag.startswith("--")}
    assert flags <= words(*path.split(), "--")


def test_an_option_that_is_there_is_offered_once_more_only_where_it_may_be_repeated() -> None:
    assert "--port" not in words("up", "--port", "8000", "--p")
    assert "--only" in words("doctor", "--only", "gpu", "--o")


def test_the_no_of_an_option_is_offered() -> None:
    assert {"--heal", "--no-heal"} <= words("up", "--")


def test_gpus_are_those_that_the_driver_lists_and_a_list_of_them_can_be_typed(tmp_path: Path) -> None:
    for bus in ("0000:01:00.0", "0000:41:00.0", "0000:c1:00.0"):
        (tmp_path / bus).mkdir()
    assert [word for word, _ in candidates(["up", "--gpus", ""], tmp_path)] == ["0", "1", "2"]
    assert [word for word, _ in candidates(["up", "--gpus", "1,"], tmp_path)] == ["1,0", "1,2"]


def test_what_is_no_command_completes_to_nothing() -> None:
    assert words("nope", "") == set()
    assert words("up", "rehearsal", "") == set()
