"""Text of others is text: never markup, and never a control sequence for the terminal it is shown on."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.chat.streams import chunk, serving, stopped
from support.instances.instance_records import write_record
from support.run_mscli import Mscli, Ran

from mscli.cli.layout import Column, cells, clipped, command_lines, table, wrapped
from mscli.instances.records import Records
from mscli.paths import Places
from mscli.untrusted import clean

Machine = Callable[..., dict[str, str]]
EVIL = (
    "\x1b]0;title\x07", "\x1b]52;c;cm0gLXJm\x1b\\", "\x1b[2J", "\x1b[31m", "\x9b31m", "\x1bc", "\x1bP1$r\x1b\\", "\x1b]8;;http://x\x07",
    "\r", "\x08", "\x7f", "\x00", "\u202e", "\u2066",
)  # fmt: skip
MARKUP = "[bold]Mistral[/] [/nope] [link=file:///etc/passwd]x[/link] \\[ [red"
TITLE = "".join(EVIL) + MARKUP
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def harmless(ran: Ran, shows: str) -> None:
    assert ran.code in (0, 3, 5), ran.err
    assert CONTROL.findall(ran.out + ran.err) == []
    assert shows in ran.out + ran.err, "text was taken for markup"


def test_a_gpus_name_and_its_processes(mscli: Mscli, machine: Machine) -> None:
    def rename(description: dict[str, object]) -> None:
        for gpu in description["gpus"]:  # type: ignore[attr-defined]
            gpu["name"] = f"NVIDIA \x9b31m\x7f{MARKUP}"  # the stand-in reads no JSON escapes

    env = machine("rtx4090-desktop", rename)
    for command in ("gpus", "plan small-cpu", "doctor --only gpu", "engines"):
        harmless(mscli(*command.split(), env=env), "")
    assert MARKUP in mscli("gpus", env=env).out


def test_an_instances_title_reply_and_log(mscli: Mscli, home: Path) -> None:
    records = Records(Places(home / "config", home / "state", home / "data"))
    with serving(stopped(chunk({"content": TITLE}))) as target:
        port = int(target.base_url.split(":")[2].partition("/")[0])
        record = write_record(
            records, "mine", None, "none", owner=TITLE, port=port, title=TITLE, alias=TITLE, stand_in=False
        )
        record.log.write_text(TITLE.replace("\r", "") + "\n")
        harmless(mscli("chat", "hello"), MARKUP)
        harmless(mscli("status"), MARKUP)
        harmless(mscli("status", "mine"), MARKUP)
        harmless(mscli("logs", "mine"), MARKUP)
        harmless(mscli("check"), "[bold]")  # shortened
        assert mscli("chat", "hello", "--json").data["text"] == TITLE, "JSON keeps what was said, escaped"
        for raw in (mscli("chat", "hello", "--json").out, mscli("logs", "mine", "--json").out):
            assert CONTROL.findall(raw.replace("\u202e", "").replace("\u2066", "")) == []


def test_a_profiles_title_and_a_file_with_markup_in_its_name(mscli: Mscli, home: Path, tmp_path: Path) -> None:
    mine = mscli("profiles", "new", "mine", "--from", "rehearsal", "--json").data["path"]
    text = Path(mine).read_text()
    Path(mine).write_text(re.sub(r"(?m)^title: .*", 'title: "[bold]Mistral[/] [/nope]"', text))
    assert "[bold]Mistral[/] [/nope]" in mscli("profiles", "--all").out
    folder = tmp_path / "[bold] [/x]"
    folder.mkdir(parents=True)
    said = mscli("doctor", "--log", str(folder / "none"))
    assert "[bold] [/x]" in said.err


def test_another_process_in_the_way_of_a_port(mscli: Mscli) -> None:
    code = "import socket as s; x = s.create_server(('127.0.0.1', 0)); print(x.getsockname()[1], flush=True); input()"
    argv = [sys.executable, "-c", code, "\x1b]0;owned\x07[/red]"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        refused = mscli("up", "rehearsal", "--port", other.stdout.readline().strip())
        other.send_signal(signal.SIGKILL)
    assert refused.code == 1
    assert CONTROL.findall(refused.err) == []


@given(st.text())
def test_cleaned_text_steers_no_terminal(text: str) -> None:
    cleaned = clean(text)
    assert CONTROL.findall(cleaned) == []
    assert clean(cleaned) == cleaned
    cleaned.encode()


LETTERS = st.characters(min_codepoint=33, max_codepoint=0x3000, whitelist_categories=("L", "N", "P", "S"))
WORDS = st.text(LETTERS, min_size=1, max_size=30)


@given(st.lists(WORDS, min_size=1, max_size=30), st.integers(20, 200))
def test_wrapped_lines_fit_and_lose_nothing(words: list[str], width: int) -> None:
    lines = wrapped(" ".join(words), width, "  ", "    ")
    assert " ".join(" ".join(lines).split()) == " ".join(" ".join(words).split())
    assert all(cells(line) <= width or len(line.split()) == 1 for line in lines)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60), st.integers(4, 60))
def test_a_clipped_text_fits(text: str, width: int) -> None:
    assert cells(clipped(text, width)) <= width


CELL = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=25)


@given(st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=5), st.integers(10, 120))
def test_a_table_leaves_columns_out_and_squeezes_none(rows: list[tuple[str, str, str]], width: int) -> None:
    lines = ["".join(line) for line in table((Column("A"), Column("B", 2), Column("C", 1)), rows, width)]
    fits = max(map(cells, lines)) <= width
    assert fits or len(lines) == len(rows), "too wide, although a column could go"
    for row in rows:
        assert any(row[0] in line for line in lines)
    if len(lines[0].split()) == 2:
        assert lines[0].split() == ["A", "C"], "the less important column goes first"


def test_a_command_in_lines_is_one_that_a_shell_takes() -> None:
    words = ["A=1", "prog", "--flag", "value", "--other", "'{\"a\": 1}'", "last"]
    lines = command_lines(words, 30, "  ")
    script = "\n".join(lines).replace("prog", "printf '%s\\n'")
    told = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.split("\n")
    assert told[:-1] == ["--flag", "value", "--other", '{"a": 1}', "last"]
    assert all(len(line) <= 30 for line in lines)


@pytest.mark.parametrize("text", ["", "a", "one\ntwo", "  indented  "])
def test_no_width_means_no_wrapping(text: str) -> None:
    assert wrapped(text, None, "> ") == [f"> {text}"]
