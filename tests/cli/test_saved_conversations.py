"""`mscli chat` goes on where it ended, and a log that does not work never stands in the way of an answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.chat.scripted import Scripted, reply, scripted
from support.run_mscli import Mscli, call


@pytest.fixture
def model(home: Path) -> object:
    with scripted(home, reply("The answer", " is 42."), reply("As I said.")) as made:
        yield made


@pytest.fixture
def database(home: Path) -> Path:
    return home / "state" / "conversations.db"


def test_a_prompt_goes_on_with_the_last_conversation(mscli: Mscli, model: Scripted) -> None:
    mscli("chat", "What is the answer?", "--system", "Be brief.")
    mscli("chat", "-c", "Are you sure?")
    assert [each["content"] for each in model.messages] == [
        "Be brief.", "What is the answer?", "The answer is 42.", "Are you sure?"
    ]  # fmt: skip
    [entry] = mscli("chat", "--list", "--json").data["conversations"]
    assert (entry["turns"], entry["title"]) == (2, "What is the answer?")


def test_saved_conversations_are_listed_and_shown(mscli: Mscli, model: Scripted) -> None:
    assert "no conversation is saved" in mscli("chat", "--list").err
    mscli("chat", "What is the answer?")
    mscli("chat", "Another one?")
    assert [line.split()[0] for line in mscli("chat", "--list").out.splitlines()] == ["N", "2", "1"]
    assert mscli("chat", "--show", "1").out.splitlines()[1:] == ["", ">>> What is the answer?", "The answer is 42."]
    assert "As I said." in mscli("chat", "--show", "last").out
    assert mscli("chat", "--show", "1", "--json").data["turns"][0]["text"] == "The answer is 42."
    mscli("chat", "--resume", "1", "Go on.")
    assert model.messages[0]["content"] == "What is the answer?"
    assert "no conversation 9" in mscli("chat", "--resume", "9", "hi", "--json").error["message"]
    assert "not a conversation's number" in mscli("chat", "--show", "x", "--json").error["message"]


def test_nothing_is_saved_where_that_is_not_wanted(mscli: Mscli, model: Scripted, database: Path) -> None:
    mscli("chat", "hello", "--no-log")
    mscli("config", "set", "log", "false")
    mscli("chat", "hello")
    assert not database.exists()
    mscli("chat", "hello", "--log")
    assert database.exists()


def test_a_damaged_log_is_told_and_the_answer_comes(mscli: Mscli, model: Scripted, database: Path) -> None:
    database.write_bytes(b"no database" * 1000)
    ran = mscli("chat", "hello")
    assert (ran.code, ran.out) == (0, "The answer is 42.\n")
    assert "this conversation is not saved" in ran.err
    assert f"mv {database}" in ran.err
    assert mscli("chat", "hello", "--json").data["text"] == "As I said."
    assert mscli("chat", "--list").code == 1


def test_a_full_disk_is_told_and_the_answer_comes(user_env: dict[str, str], model: Scripted) -> None:
    ran = call("chat", "hello", env=user_env, through=("prlimit", "--fsize=4096"))
    assert (ran.code, ran.out) == (0, "The answer is 42.\n")
    assert "this conversation is not saved" in ran.err


def test_a_log_that_may_not_be_written_is_told_and_the_answer_comes(
    mscli: Mscli, model: Scripted, database: Path
) -> None:
    database.symlink_to("/proc/self/nothing")
    ran = mscli("chat", "hello")
    assert (ran.code, ran.out) == (0, "The answer is 42.\n")
    assert "this conversation is not saved" in ran.err


def test_thoughts_are_shown_where_they_are_wanted(mscli: Mscli, home: Path) -> None:
    with scripted(home, reply("42.", thought=["Let me", " think."])):
        assert "think." not in mscli("chat", "hello").err
        assert "Let me think." in mscli("chat", "hello", "--think").err
        assert mscli("chat", "hello", "--think").out == "42.\n"
