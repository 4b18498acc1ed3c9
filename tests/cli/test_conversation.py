"""`mscli chat` as people use it: a conversation on a terminal, and prompts with what is piped in and files."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from support.run_mscli import Mscli
from support.terminal import CTRL_C, CTRL_D, ENTER, Terminal, on_a_terminal

REPLY_ENDS = ", context "
HELLO = "Hello! This is a scripted stand-in"


@pytest.fixture
def running(mscli: Mscli) -> Mscli:
    mscli("up", "rehearsal")
    return mscli


def enter(screen: Terminal, text: str, shown: str = REPLY_ENDS) -> str:
    """Type a line; what is shown up to `shown`. Then the next line may be typed."""
    screen.press(text + ENTER)
    text = screen.until(shown)
    screen.until(">>>")
    return text


def test_a_conversation_is_typed_pasted_taken_back_and_left(
    running: Mscli, user_env: dict[str, str], home: Path
) -> None:
    with on_a_terminal("chat", env=user_env) as screen:
        screen.until(">>>")
        assert HELLO in enter(screen, "hello")
        screen.paste("three\nlines\npasted")
        screen.until("pasted")
        enter(screen, "")
        assert "2 replies" in enter(screen, "/stats", "replies")  # the paste was one message, not three
        assert HELLO in enter(screen, "/retry")
        enter(screen, "/undo", "removed the last")
        enter(screen, "/set temperature hot", "Type /set temperature 0.3")
        enter(screen, "/nonsense", "unknown command /nonsense")
        screen.press(CTRL_D)
        assert screen.ended() == 0
    [history] = home.rglob("chat_history")
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert "+pasted" in history.read_text()


def test_ctrl_c_drops_a_line_and_leaves_the_second_time(running: Mscli, user_env: dict[str, str]) -> None:
    with on_a_terminal("chat", env=user_env) as screen:
        screen.until(">>>")
        screen.press("half a li" + CTRL_C)
        screen.until("Ctrl-C again quits")
        screen.until(">>>")
        assert HELLO in enter(screen, "hello")
        screen.press(CTRL_C)
        screen.until("Ctrl-C again quits")
        screen.until(">>>")
        screen.press(CTRL_C)
        assert screen.ended() == 0


def test_what_is_piped_in_and_files_go_with_the_prompt(running: Mscli, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("word " * 40)

    def tokens(*args: str, stdin: str = "") -> int:
        return int(running("chat", "--json", *args, stdin=stdin).data["prompt_tokens"])

    alone = tokens("hi")
    assert tokens("hi", stdin="word " * 40) > alone + 40
    assert tokens("hi", "-f", str(notes)) > alone + 40
    assert tokens("hi", "--no-stdin", stdin="word " * 40) == alone


@pytest.mark.parametrize(
    ("args", "stdin", "message"),
    [
        (("hi", "-f", "/no/such/file"), "", "No such file"),
        (("hi", "-f", sys.executable), "", "is not a text file"),
        (("hi",), "x" * (16 * 2**20 + 1), "larger than 16 MiB"),
        ((), "  \n", "the prompt is empty"),
    ],
    ids=["missing", "binary", "too much", "nothing"],
)  # fmt: skip
def test_what_cannot_be_sent_is_refused_in_words(
    running: Mscli, args: tuple[str, ...], stdin: str, message: str
) -> None:
    refused = running("chat", *args, stdin=stdin)

    assert refused.code in (1, 2)
    assert message in refused.err


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("mine",), "nothing is running"),
        (("-i", "mine", "hello"), "no instance 'mine'"),
        (("mine", "hello"), "no instance 'mine'"),
        (("-i", "mine", "mine", "hello"), "2 arguments were given"),
    ],
    ids=["one is a prompt", "-i names the instance", "of two the first is the instance", "both"],
)
def test_a_word_alone_is_a_prompt(typed: tuple[str, ...], said: str, mscli: Mscli) -> None:
    assert said in mscli("chat", *typed, "--json").error["message"]


def test_a_loop_keeps_its_input(running: Mscli, user_env: dict[str, str]) -> None:
    loop = f'while read -r line; do {sys.executable} -m mscli chat "$line" --no-stdin; done'
    done = subprocess.run(
        ["sh", "-c", loop], input="one\ntwo\n", env=user_env, capture_output=True, text=True, timeout=60
    )

    assert done.stdout.count(HELLO) == 2
