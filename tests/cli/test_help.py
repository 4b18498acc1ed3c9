"""Help, `mscli` alone, the words of other tools; and that every command has a screen, examples that run, completion."""

from __future__ import annotations

import io
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.own_files import profile_text
from support.run_mscli import call, environment
from support.screens import take

from mscli.cli.completion import candidates
from mscli.cli.help import ALIASES, INSTEAD, commands
from mscli.cli.main import main

EXAMPLES = [(path, line) for path, it in commands().items() for line in it["examples"]]


@pytest.mark.parametrize("path", commands())
def test_every_command_has_a_screen_examples_and_completion(path: str) -> None:
    heads = [file.read_text().partition("\n")[0].removeprefix("$ mscli ") for file in take.TAKEN.rglob("*.txt")]
    shown = [head for head in heads if f"{head} ".startswith(f"{path} ") and "--help" not in head]
    assert shown, f"tests/screens has no screen of `mscli {path}`: add one to support/screens"
    assert f"{path} --help" in heads, (
        "its help is not in tests/screens: PYTHONPATH=tests python -m support.screens.take"
    )
    assert any(f"mscli {path}" in line for line in commands()[path]["examples"]), "it has no example"
    *before, name = path.split()
    assert name in {word for word, _ in candidates([*before, ""])}, "it is not completed"


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A user whose instance runs, on a machine that reaches nobody."""
    folder: Path = tmp_path_factory.mktemp("user")
    (folder / "vllm.log").write_text("torch.OutOfMemoryError: CUDA out of memory.\n")
    (folder / "my.yaml").write_text(profile_text("rehearsal"))
    nobody = "http://127.0.0.1:9"
    env = environment(folder, folder / "home") | {
        "HF_ENDPOINT": nobody, "HF_HUB_OFFLINE": "1", "MSCLI_OLLAMA_RELEASES": nobody, "PATH": "/nowhere",
        "MSCLI_LLAMACPP_RELEASES": nobody,
    }  # fmt: skip
    assert call("up", "rehearsal", env=env).code == 0
    yield env
    call("down", "--all", env=env)


@pytest.mark.parametrize(("path", "line"), EXAMPLES, ids=[line for _, line in EXAMPLES])
def test_an_example_is_understood(
    path: str, line: str, user: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """It may fail for want of a GPU, of the network, or of the instance that it names: never for what was typed."""
    for name, value in user.items():
        monkeypatch.setenv(name, value)
    if path in ("down", "config set", "config unset", "profiles new"):  # what it changes is its own
        monkeypatch.setenv("MSCLI_HOME", str(tmp_path))
    monkeypatch.chdir(Path(user["MSCLI_HOME"]).parent)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"hello\n")))
    words = shlex.split(re.findall(r"mscli ([^|)]*)", line)[-1])
    argv = [word for word in words if word not in ("-f", "--watch", "--json")]
    code = main([*argv, "--json"])
    said = capsys.readouterr().out
    assert code in (0, 1, 3, 4, 5), said
    assert json.loads(said).get("error", {}).get("code") not in ("usage", "internal"), said


@pytest.mark.parametrize("path", commands())
def test_each_option_is_one_line_at_80_columns_and_no_description_is_cut(path: str) -> None:
    text = (take.TAKEN / "help" / take.file_of("help", f"{path} --help").name).read_text()
    piped = text.partition("===== piped\n")[2]
    narrow, _, rest = text.partition("===== 80x24\n")[2].partition("===== ")
    shown = narrow.splitlines()
    for line in (line for line in piped.splitlines() if re.match(r"  (-\w, |    )--|  \S+  +\S", line)):
        assert line in shown, f"wrapped: {line}"
    assert not re.search("…|~$", text, re.MULTILINE)
    assert rest


def test_the_help_of_the_program_is_one_screen() -> None:
    shown = (take.TAKEN / "help" / "help.txt").read_text().partition("===== 80x24\n")[2].partition("===== ")[0]
    assert len(shown.splitlines()) < 24
    assert all(path in shown for path in commands() if " " not in path)


def test_the_words_of_other_tools_are_known() -> None:
    assert {"ps", "ls", "list", "stop", "rm", "run", "serve", "start", "show"} <= {*ALIASES, *INSTEAD}
    assert "rm" not in ALIASES, "it would delete in other tools"


@pytest.mark.parametrize("word", ALIASES)
def test_another_tools_word_does_what_the_command_does(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word, "--help"]) == main([*ALIASES[word], "--help"]) == 0
    typed, meant = capsys.readouterr().out, " ".join(ALIASES[word])
    assert typed.startswith(f"Usage: mscli {meant}")


@pytest.mark.parametrize("word", INSTEAD)
def test_a_word_that_could_mean_more_is_answered_with_the_commands(
    word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word, "small-q4"]) == 2
    said = capsys.readouterr().err
    assert f"no such command: {word}" in said
    assert set(re.findall(r"mscli (\w+)", said)) <= set(commands())
    assert "mscli" in said


def test_a_mistyped_command_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["statsu", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["code"], error["details"]["nearest"]) == ("usage", "status")
    assert "mscli status" in error["hint"]


def test_mscli_alone_shows_where_the_user_stands(
    user: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MSCLI_HOME", str(tmp_path))
    assert main([]) == 0
    first = capsys.readouterr().out
    assert all(command in first for command in ("nothing is running", "mscli plan", "mscli up", "mscli chat"))
    monkeypatch.setenv("MSCLI_HOME", user["MSCLI_HOME"])
    assert main([]) == 0
    running = capsys.readouterr().out
    assert all(word in running for word in ("rehearsal", "ready", "/v1", 'mscli chat "hello"'))
