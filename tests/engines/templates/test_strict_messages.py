"""What the gateway makes of a conversation for vLLM, held to mistral_common, by which vLLM reads it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from support.templates.conversations import Maker, Message
from support.templates.reference import Refused, reference

from mscli.engines.serving.formats.apis import accepted

SYSTEM: Message = {"role": "system", "content": "Be brief."}
USER: Message = {"role": "user", "content": "a"}
SAID: Message = {"role": "assistant", "content": "b"}


def called(*ids: str | None) -> list[Message]:
    """Calls of a tool by their ids, and the result of each."""
    function = {"name": "look", "arguments": "{}"}
    calls = [{"id": identity, "type": "function", "function": function} for identity in ids]
    results = [{"role": "tool", "tool_call_id": identity, "content": "seen"} for identity in ids]
    return [{"role": "assistant", "content": None, "tool_calls": calls}, *results]


REFUSED: dict[str, tuple[str, list[Message]]] = {
    "an id of our own": ("v7", [USER, *called("call_1", "call_2")]),
    "an id of Anthropic's": ("v11", [USER, *called("toolu_01A09q90qw90lq917835lq9")]),
    "an id of llama.cpp's": ("v11", [USER, *called("x" * 23 + "abcdefghi")]),
    "an id with dashes": ("v7", [USER, *called("fc_6f1c-2b3d")]),
    "the system behind an answer": ("v7", [SYSTEM, USER, SAID, SYSTEM, USER]),
    "the system twice behind an answer": ("v13", [USER, SAID, SYSTEM, SYSTEM, USER]),
    "the system behind a result": ("v11", [USER, *called("abcdefgh1"), SYSTEM]),
    "a call without a result": ("v11", [USER, called("abcdefgh1")[0], USER, SAID, USER]),
    "one of two calls without a result": ("v7", [USER, *called("abcdefgh1", "abcdefgh2")[:2], SAID, USER]),
    "a result that no call waits for": ("v11", [USER, *called("abcdefgh1"), called("abcdefgh2")[1], SAID, USER]),
    "an answer that says nothing": ("v11", [USER, {"role": "assistant", "content": ""}, USER]),
}


@pytest.mark.parametrize(("version", "messages"), REFUSED.values(), ids=list(REFUSED))
def test_what_mistral_common_refuses_is_put_so_that_it_does_not(version: str, messages: list[Message]) -> None:
    with pytest.raises(Refused):
        reference(version).encode(messages, [])

    assert reference(version).encode(accepted(messages), [])


@pytest.mark.parametrize("version", ["v7", "v11", "v13"])
def test_what_it_takes_has_the_same_prompt(version: str) -> None:
    same = 0
    for seed in range(200):
        messages, tools = Maker(seed).conversation()
        with suppress(Refused):
            tokens = reference(version).encode(messages, tools)
            assert reference(version).encode(accepted(messages), tools) == tokens, messages
            same += 1
    assert same > 150


def test_a_system_message_behind_an_answer_stays_in_its_place() -> None:
    made: list[Any] = accepted([SYSTEM, USER, SAID, {"role": "developer", "content": "Now in French."}, USER])

    assert [(each["role"], each["content"]) for each in made[-2:]] == [("user", "Now in French."), ("user", "a")]
    assert made[0] == SYSTEM
