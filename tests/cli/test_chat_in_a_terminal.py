"""`mscli chat` in a real terminal: pastes, history, Ctrl-C, resizes, thoughts, and a server that dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest
from support.chat.scripted import DIES, HANGS, Scripted, reply, scripted
from support.picture import png_file
from support.tmux import Tmux, in_tmux, needs_tmux

pytestmark = needs_tmux
ANSWER = reply("# Result\n\n", "It is **42**.\n\n```python\nprint(", "42)\n```\n")


class Held(Protocol):
    def __call__(
        self, *replies: list[str], width: int = 80, context: int = 4096, **env: str
    ) -> tuple[Tmux, Scripted]: ...


@pytest.fixture
def held(home: Path, user_env: dict[str, str], tmp_path: Path) -> Iterator[Held]:
    """A conversation with a model that gives these replies."""
    with ExitStack() as stack:

        def begin(*replies: list[str], width: int = 80, context: int = 4096, **env: str) -> tuple[Tmux, Scripted]:
            model = stack.enter_context(scripted(home, *replies, context=context))
            own = {**user_env, **env}
            window = stack.enter_context(in_tmux("chat", env=own, folder=tmp_path / "window", width=width))
            window.prompt("/help for commands")
            return window, model

        yield begin


def test_a_reply_is_rendered_and_its_cost_told(held: Held) -> None:
    window, _ = held(ANSWER)
    window.type("what is it?")
    screen = window.prompt("tokens")
    assert "Result\n\nIt is 42.\n\n```python\nprint(42)\n```\n9 tokens" in screen
    assert "context 49 of 4,096 (1%)" in screen
    assert "\x1b[1m42" in window.styled, "bold"


def test_a_paste_of_several_lines_is_one_message(held: Held) -> None:
    window, model = held(ANSWER)
    window.paste("three\nlines\nof text")
    window.until("of text")
    assert model.asked == []
    window.keys("Enter")
    window.prompt("42")
    assert model.messages[-1]["content"] == "three\nlines\nof text"


def test_the_history_of_an_earlier_conversation_is_searched(
    held: Held, home: Path, user_env: dict[str, str], tmp_path: Path
) -> None:
    window, model = held(ANSWER)
    window.type("an old question")
    window.prompt("42")
    window.keys("C-d")
    window.until("ended with 0")
    with in_tmux("chat", env=user_env, folder=tmp_path / "second") as second:
        second.prompt()
        second.keys("C-r")
        second.until("I-search backward")
        second.run("send-keys", "-l", "old")
        second.until("an old question")
        second.keys("Enter")
        second.until_screen(lambda screen: "I-search" not in screen and ">>> an old question" in screen, "found")
        second.keys("Enter")
        second.prompt("42")
    assert model.messages[-1]["content"] == "an old question"


def test_ctrl_c_stops_a_reply_and_keeps_its_beginning(held: Held) -> None:
    window, model = held([*reply("It is 4")[:1], HANGS], reply("Fine."))
    window.type("what is it?")
    window.until("It is 4")
    window.keys("C-c")
    screen = window.prompt("its beginning is kept")
    assert "^C" not in screen
    assert model.gone.wait(60), "the server is told"
    window.type("go on")
    window.prompt("Fine.")
    assert [each["content"] for each in model.messages] == ["what is it?", "It is 4", "go on"]
    window.keys("C-c")
    window.until("Ctrl-C again quits")
    window.keys("C-c")
    window.until("ended with 0")


def test_ctrl_c_twice_leaves_from_within_a_reply(held: Held) -> None:
    window, _ = held([HANGS])
    window.type("what is it?")
    window.until("waiting for the first token")
    window.keys("C-c")
    screen = window.prompt("(stopped; /retry asks again, Ctrl-C again quits)")
    assert "waiting" not in screen
    window.keys("C-c")
    window.until("ended with 0")


def test_a_server_that_dies_in_a_reply_is_told_and_asked_again(held: Held) -> None:
    window, model = held([*reply("# Half a\n\nreply\n\nthat ends")[:1], DIES], ANSWER)
    window.type("what is it?")
    screen = window.prompt("error:")
    assert "Half a\n\nreply\n\nthat ends\nerror: " in screen
    window.type("/retry")
    window.prompt("It is 42.")
    assert [each["content"] for each in model.messages] == ["what is it?"]


def test_thoughts_are_dim_and_not_sent_again_unless_wanted(held: Held) -> None:
    thinking = reply("It is 42.", thought=["Six times", " seven."])
    window, model = held(thinking)
    window.type("what is it?")
    screen = window.prompt("tokens")
    assert "Six times seven.\n\nIt is 42.\n" in screen
    assert "\x1b[2mSix times" in window.styled
    window.type("again")
    window.until_screen(lambda screen: screen.count("9 tokens") == 2, "two replies")
    assert "Six times" not in str(model.messages)
    window.type("/keep-thoughts on")
    window.prompt("sent along")
    window.type("/think off")
    window.prompt("not shown")
    window.type("/clear")
    window.prompt("started over")
    for question in ("first", "second"):
        window.type(question)
        window.until_screen(lambda screen, asked=question: len(model.asked) == 3 + (asked == "second"), question)  # type: ignore[misc]
        window.prompt()
    assert "Six times seven." in str(model.messages)


LINES = "".join(f"line {number} of a long answer that goes on to the end of the line\n\n" for number in range(30))


@pytest.mark.parametrize("sizes", [(80, 40), (40, 80)])
def test_a_resize_within_a_reply_leaves_no_line_twice(held: Held, sizes: tuple[int, int]) -> None:
    begun = "The end of this\nparagraph, which is longer than the width of a narrow terminal, has not come, and"
    first = reply(LINES + begun)[:1]
    window, _ = held([*first, HANGS], width=sizes[0])
    window.type("go")
    window.until_screen(lambda screen: "has not come, and" in " ".join(screen.split()), "the tail")
    window.resize(sizes[1])
    window.keys("C-c")
    window.prompt("Ctrl-C again quits")
    whole = " ".join(window.whole.split())
    for number in range(30):
        assert whole.count(f"line {number} of") == 1
    assert whole.count("The end of this") == 1
    assert whole.count("has not come, and") == 1


@pytest.mark.parametrize("width", [80, 40])
def test_a_full_context_is_told_and_turns_are_left_out_or_summarized(held: Held, width: int) -> None:
    full = reply("An answer.", prompt_tokens=3900)
    window, model = held(full, full, reply("We spoke of answers.", prompt_tokens=3990), ANSWER, width=width)
    window.type("one " * 10)
    screen = window.prompt("full")
    assert "95% full" in " ".join(screen.split()) or "96% full" in " ".join(screen.split())
    window.type("two")
    window.until_screen(lambda _: len(model.asked) == 2, "asked")
    window.prompt("full")
    window.type("/summarize")
    window.prompt("still sent")
    assert "Summarize our conversation" in model.messages[-1]["content"]
    window.type("three")
    window.prompt("42")
    assert [each["content"] for each in model.messages][1:] == ["We spoke of answers.", "two", "An answer.", "three"]
    window.type("/drop 1")
    window.prompt("1 turn left out")
    window.type("/stats")
    window.prompt("2 turns left out")


def test_the_commands_are_listed_and_answered(held: Held, tmp_path: Path) -> None:
    window, model = held(ANSWER)
    notes = tmp_path / "notes.txt"
    notes.write_text("a note")
    for line, said in (
        ("/help", "/bye"), ("/retry", "nothing has been asked"), ("/undo", "nothing to undo"), ("/copy", "no reply"),
        (f"/file {notes}", "1 file for the next"), ("/set temperature 0.3", "temperature is 0.3"),
        ("/drop x", "not a number"), ("/summarize", "nothing to summarize"), ("/model mine", "talking to m (mine)"),
    ):  # fmt: skip
        window.type(line)
        window.prompt(said)
    window.type("read it")
    window.prompt("42")
    assert model.messages[-1]["content"] == "read it\n\nnotes.txt:\n\na note"
    window.type("/copy code")
    window.prompt("clipboard")
    window.type("/system Be brief.")
    window.prompt("with this system prompt")
    window.type("hi")
    window.until_screen(lambda _: len(model.asked) == 2, "asked")
    window.prompt()
    assert [each["role"] for each in model.messages] == ["system", "user"]
    window.type("/bye")
    window.until("ended with 0")


def test_a_conversation_goes_on_where_it_ended(held: Held, user_env: dict[str, str], tmp_path: Path) -> None:
    window, model = held(ANSWER)
    window.type("what is it?")
    window.prompt("42")
    window.keys("C-d")
    window.until("ended with 0")
    with in_tmux("chat", "-c", env=user_env, folder=tmp_path / "second") as second:
        screen = second.prompt("conversation 1")
        assert ">>> what is it?\nResult\n\nIt is 42.\n" in screen
        second.type("sure?")
        second.prompt("tokens")
    assert [each["role"] for each in model.messages] == ["user", "assistant", "user"]


def test_images_are_pasted_as_paths_or_taken_from_the_clipboard(
    held: Held, tmp_path: Path, user_env: dict[str, str]
) -> None:
    photo = tmp_path / "my photo.png"
    photo.write_bytes(png_file())
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "xclip").write_text(f"#!/bin/sh\ncase $* in *image/png*) cat '{photo}';; *) exit 1;; esac\n")
    (tools / "xclip").chmod(0o755)
    window, model = held(ANSWER, DISPLAY=":0", PATH=f"{tools}:{user_env['PATH']}")
    window.paste(f"'{photo}'")
    window.keys("Enter")
    window.prompt("(56x56, about 6 tokens)")
    assert model.asked == []
    window.type("/image clipboard")
    window.prompt("clipboard (56x56")
    window.type("what is this?")
    window.prompt("42")
    assert [part["type"] for part in model.messages[-1]["content"]] == ["image_url", "image_url", "text"]
    window.paste(f"and {str(photo).replace(' ', chr(92) + ' ')} ?")
    window.keys("Enter")
    window.until_screen(lambda _: len(model.asked) == 2, "asked")
    window.prompt()
    assert [part["type"] for part in model.messages[-1]["content"]] == ["image_url", "text"]
    window.type("/image /no/such.png")
    window.prompt("No such file")


def test_what_no_longer_fits_is_told_before_it_is_sent(held: Held) -> None:
    window, model = held(reply("Fine."), context=300)
    for number in range(2):
        window.paste("word " * 100)
        window.keys("Enter")
        window.until_screen(lambda _, sent=number + 1: len(model.asked) == sent, "asked")  # type: ignore[misc]
        window.prompt("Fine.")
    window.paste("word " * 100)
    window.keys("Enter")
    window.prompt("type /retry")
    assert len(model.asked) == 2
    window.type("/drop 1")
    window.prompt("1 turn left out")
    window.type("/retry")
    window.until_screen(lambda _: len(model.asked) == 3, "asked")
    window.prompt()
