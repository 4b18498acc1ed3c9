"""Saved conversations: found again as they were, private, and no fault of the database is more than one message."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from mscli.chat.conversation import Conversation, ConversationLog, Turn
from mscli.chat.message import user
from mscli.errors import Code, MscliError

IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "conversations.db"


def talk(*questions: str) -> Conversation:
    made = Conversation("Be brief.")
    for each in questions:
        made.add(Turn(user(each), f"answer to {each}", "thought", 1.5, 40, 9, 0.5))
    return made


def saved(log: ConversationLog, conversation: Conversation) -> Conversation:
    log.save(conversation, "mine", "small")
    return log.load(conversation.number)[0]


def test_a_conversation_is_found_again_as_it_was(path: Path) -> None:
    log, made = ConversationLog(path), Conversation("Be brief.")
    for turn in (*talk("one", "two").turns, Turn(IMAGE, "an image", stopped=True)):
        made.add(turn)
        log.save(made, "mine", "small")
    assert log.load(None)[0].turns == made.turns
    assert log.load(None)[0].system == "Be brief."
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    [entry] = log.entries(10)
    assert (entry.title, entry.turns, entry.instance, entry.model) == ("one", 3, "mine", "small")


def test_what_is_taken_back_left_out_or_asked_again_is_saved_so(path: Path) -> None:
    log, made = ConversationLog(path), Conversation()
    for turn in talk("one", "two", "three").turns:
        made.add(turn)
        log.save(made, "mine", "small")
    made.undo()
    assert saved(log, made).turns == made.turns
    made.add(Turn(user("three"), "another answer"))
    assert saved(log, made).turns[-1].text == "another answer"
    made.leave_out(2, "a summary")
    found = saved(log, made)
    assert (found.left_out, found.summary, len(found.turns)) == (2, "a summary", 3)


def test_two_conversations_are_apart_and_the_one_changed_last_comes_first(path: Path) -> None:
    log, one, two = ConversationLog(path), talk("one"), talk("two")
    for each in (one, two, one):
        log.save(each, "mine", "small")
    assert one.number != two.number
    assert [entry.title for entry in log.entries(10)] == ["one", "two"]
    assert log.load(None)[1].title == "one"


def test_nothing_is_created_for_nothing(path: Path) -> None:
    log = ConversationLog(path)
    log.save(Conversation(), "mine", "small")
    assert log.entries(10) == ()
    assert not path.parent.exists()
    with pytest.raises(MscliError, match="no conversation is saved"):
        log.load(None)


def damaged(path: Path) -> None:
    path.write_bytes(b"not a database " * 500)


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as base:
        base.execute("PRAGMA user_version = 99")


def a_folder(path: Path) -> None:
    path.mkdir()


def a_link(path: Path) -> None:
    path.symlink_to(path.with_name("elsewhere"))


def other_rows(path: Path) -> None:
    ConversationLog(path).save(talk("one"), "mine", "small")
    with closing(sqlite3.connect(path)) as base, base:
        base.execute("UPDATE turn SET asked = 'not JSON'")


@pytest.mark.parametrize("fault", [damaged, newer, a_folder, a_link, other_rows])
def test_a_database_that_does_not_work_is_one_fault_in_words(path: Path, fault: object) -> None:
    path.parent.mkdir()
    fault(path)  # type: ignore[operator]
    log = ConversationLog(path)
    with pytest.raises(MscliError) as raised:
        log.load(None) if fault is other_rows else log.save(talk("one"), "mine", "small")
    assert raised.value.code == Code.FILE
    assert raised.value.message.startswith("the log of conversations: ")
    assert str(path) in raised.value.hint


def test_a_locked_database_is_waited_for_a_second(path: Path) -> None:
    log = ConversationLog(path)
    log.save(talk("one"), "mine", "small")
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(MscliError, match="locked"):
            log.save(talk("two"), "mine", "small")
    log.save(talk("two"), "mine", "small")
    assert len(log.entries(10)) == 2
