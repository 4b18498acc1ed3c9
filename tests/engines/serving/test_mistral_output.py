"""What Mistral models write, taken apart, whatever pieces it comes in."""

from __future__ import annotations

import json

import pytest

from mscli.engines.serving.mistral_format import CONTENT, REASONING, Reader, parse_calls

V7 = '[TOOL_CALLS][{"name": "f", "arguments": {"a": [1, "]"]}}, {"name": "g", "arguments": {}}]</s>'
V11 = '[TOOL_CALLS]f[ARGS]{"a": [1, "]"]}[TOOL_CALLS]g[CALL_ID]abc[ARGS]{}</s>'


def read(text: str, size: int, stops: tuple[str, ...] = ()) -> tuple[dict[str, str], Reader]:
    """The text by kind, fed in pieces of `size` characters."""
    reader, said = Reader(stops), {CONTENT: "", REASONING: ""}
    for start in range(0, len(text), size):
        for kind, piece in reader.feed(text[start : start + size]):
            said[kind] += piece
    for kind, piece in reader.end():
        said[kind] += piece
    return said, reader


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
@pytest.mark.parametrize("text", [V7, V11], ids=["v7", "v11"])
def test_calls_of_tools_are_read_in_both_syntaxes(text: str, size: int) -> None:
    said, reader = read(f"Let me look.{text}", size)
    functions = [call["function"] for call in reader.calls()]

    assert said[CONTENT] == "Let me look."
    assert [function["name"] for function in functions] == ["f", "g"]
    assert [json.loads(function["arguments"]) for function in functions] == [{"a": [1, "]"]}, {}]
    assert reader.stopped


def test_an_id_that_was_written_is_kept_and_a_missing_one_made() -> None:
    first, second = read(V11, 7)[1].calls()

    assert len(first["id"]) == 9
    assert second["id"] == "abc"


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_thought_is_told_from_the_answer(size: int) -> None:
    said, _ = read("[THINK]Hm, [x] or [y]?[/THINK]It is [x].</s>", size)

    assert said == {REASONING: "Hm, [x] or [y]?", CONTENT: "It is [x]."}


def test_a_call_that_is_cut_off_is_given_back_as_text() -> None:
    said, reader = read('[TOOL_CALLS][{"name": "f", "argu', 4)

    assert reader.calls() == []
    assert said[CONTENT] == '[TOOL_CALLS][{"name": "f", "argu'


@pytest.mark.parametrize("size", [1, 4, 1000])
def test_a_stop_text_ends_the_answer_and_is_not_part_of_it(size: int) -> None:
    said, reader = read("one, two, three", size, (", th",))

    assert said[CONTENT] == "one, two"
    assert reader.stopped


def test_text_that_only_begins_like_a_mark_is_not_lost() -> None:
    assert read("a [TOOL_CAL", 3)[0][CONTENT] == "a [TOOL_CAL"


@pytest.mark.parametrize("text", ["", "[]", "{}", "f", '[{"name": "f"}]', "f[ARGS]{", "[1]", "null"])
def test_what_is_no_call_is_none(text: str) -> None:
    assert parse_calls(text) is None
