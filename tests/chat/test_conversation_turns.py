"""What of a conversation is sent: turns taken back, left out, summarized; and its reasoning only where it is wanted."""

from __future__ import annotations

from mscli.chat.conversation import SUMMARY_REQUEST, Conversation, Turn
from mscli.chat.message import estimated_tokens, user


def conversation(turns: int, words: int = 100) -> Conversation:
    made = Conversation("Be brief.")
    for number in range(turns):
        made.add(Turn(user(f"question {number} " + "word " * words), f"answer {number}", f"thought {number}"))
    return made


def sent(talk: Conversation) -> list[str]:
    return [str(each["content"]).partition(" word")[0] for each in talk.messages(user("next"))]


def test_the_reasoning_of_earlier_replies_is_sent_only_where_it_is_wanted() -> None:
    talk = conversation(1)
    assert "thought 0" not in str(talk.messages(None))
    talk.keep_thoughts = True
    assert talk.messages(None)[-1]["reasoning_content"] == "thought 0"
    assert talk.messages(None, thinks_in_text=True)[-1]["content"] == "<think>\nthought 0\n</think>\n\nanswer 0"


def test_turns_are_taken_back_from_the_end_and_left_out_from_the_beginning() -> None:
    talk = conversation(3)
    assert talk.leave_out(1) == 1
    assert sent(talk) == ["Be brief.", "question 1", "answer 1", "question 2", "answer 2", "next"]
    undone = talk.undo()
    assert undone
    assert undone.text == "answer 2"
    assert sent(talk) == ["Be brief.", "question 1", "answer 1", "next"]
    assert talk.leave_out(9) == 0, "the last turn stays"
    assert talk.undo()
    assert talk.undo() is None, "what was left out is not taken back"


def test_a_summary_stands_for_what_was_left_out() -> None:
    talk = conversation(3)
    talk.leave_out(2, "what was said")
    request, summary, *rest = talk.messages(user("next"))[1:]
    assert (request["content"], summary["content"]) == (SUMMARY_REQUEST, "what was said")
    assert len(rest) == 3


def test_as_many_turns_are_too_many_as_do_not_fit() -> None:
    talk = conversation(10)
    whole = estimated_tokens(talk.messages(None))
    number = talk.too_many(whole // 2)
    assert 4 <= number <= 6
    talk.leave_out(number)
    assert talk.estimate() <= whole // 2 + 20
    assert conversation(1, words=10_000).too_many(100) == 0


def test_the_count_of_the_last_reply_holds_until_turns_are_left_out() -> None:
    talk = conversation(2)
    talk.add(Turn(user("hi"), "hello", prompt_tokens=900, completion_tokens=100))
    assert talk.used_tokens == 1000
    talk.leave_out(2)
    assert 0 < talk.used_tokens < 100
