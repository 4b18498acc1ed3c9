"""Anthropic's /v1/messages in terms of chat completions: what becomes of a request, and of a reply's chunks."""

from __future__ import annotations

from typing import Any

import pytest
from support.engines.odd_requests import FULL_MESSAGES as FULL
from support.engines.odd_requests import MESSAGES_LOOK as LOOK
from support.engines.odd_requests import ODD_ENOUGH, variations
from support.picture import png

from mscli.engines.serving.chat_request import RequestError, check
from mscli.engines.serving.formats.chunks import Chunk, chunk, usage
from mscli.engines.serving.formats.messages import Reply, error, request

HELLO = [{"role": "user", "content": "hello"}]


def asked(**more: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 9, "messages": HELLO, **more}


def events(*chunks: Chunk) -> list[Chunk]:
    reply = Reply("m", asked())
    return [*(event for made in chunks for event in reply.feed(made)), *reply.end()]


def whole(*chunks: Chunk) -> Chunk:
    reply = Reply("m", asked())
    for made in chunks:
        list(reply.feed(made))
    return reply.whole()


CALLED = (
    chunk({"reasoning_content": "Hm."}),
    chunk({"content": "I look."}),
    chunk({"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "look", "arguments": ""}}]}),
    chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"at":1}'}}]}),
    chunk({"tool_calls": [{"index": 1, "id": "c2", "function": {"name": "look", "arguments": "{}"}}]}),
    chunk({}, "tool_calls", **usage(5, 7)),
)


def test_a_conversation_with_tools_images_and_thoughts() -> None:
    made = request(FULL)

    calls = [
        {"id": identity, "type": "function", "function": {"name": "look", "arguments": arguments}}
        for identity, arguments in (("c1", '{"at": 1}'), ("c2", "{}"))
    ]
    assert made["messages"] == [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": png()}}],
        },
        {"role": "assistant", "content": "I look.", "reasoning_content": "Hm.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "a cat"},
        {"role": "tool", "tool_call_id": "c2", "content": "too dark"},
        {"role": "user", "content": "And now?"},
    ]
    function = {"name": "look", "description": "d", "parameters": {"type": "object"}}
    assert {name: part for name, part in made.items() if name != "messages"} == {
        "model": "m", "stream": True, "max_completion_tokens": 1024, "temperature": 0.15, "top_k": 40, "stop": ["END"],
        "tools": [{"type": "function", "function": function}], "tool_choice": "auto", "parallel_tool_calls": False,
    }  # fmt: skip
    check(made, 1, ("text",))


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "any"}, "required"),
        ({"type": "none"}, "none"),
        ({"type": "tool", "name": "look"}, {"type": "function", "function": {"name": "look"}}),
    ],
)
def test_a_call_can_be_demanded(choice: dict[str, str], expected: object) -> None:
    assert request(asked(tools=[LOOK], tool_choice=choice))["tool_choice"] == expected


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"messages": None}, "`messages` is missing"),
        ({"system": "Be brief.", "messages": []}, "at least one message"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "`messages` must be"),
        ({"messages": [{"role": "user", "content": [{"type": "document"}]}]}, "'document'"),
        ({"max_tokens": "9"}, "`max_tokens` must be"),
        ({"mcp_servers": [{"type": "url"}]}, "`mcp_servers`"),
        ({"tool_choice": {"type": "any"}}, "none of the client's own"),
        ({"tools": [LOOK], "tool_choice": {"type": "some"}}, "'some'"),
    ],
)
def test_what_cannot_be_had_is_refused(body: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words) as raised:
        check(request(asked(**body)), 0, ("text",))

    assert raised.value.status == 400


def test_an_image_that_this_machine_would_have_to_fetch_is_refused() -> None:
    image = {"type": "image", "source": {"type": "url", "url": "file:///etc/passwd"}}

    with pytest.raises(RequestError, match="as data URLs"):
        check(request(asked(messages=[{"role": "user", "content": [image]}])), 1, ("text",))


def test_no_odd_request_is_a_fault_of_the_server() -> None:
    good = 0
    for body in variations(FULL, ODD_ENOUGH):
        if isinstance(body, dict):
            try:
                check(request(body), 1, ("text",))
                good += 1
            except RequestError as fault:
                assert fault.status == 400  # noqa: PT017

    assert good > 100


def test_a_reply_event_by_event() -> None:
    told = events(chunk({"role": "assistant", "content": None}), *CALLED)

    assert [event["type"] for event in told] == [
        "message_start",
        *["content_block_start", "content_block_delta", "content_block_stop"] * 4,
        "message_delta",
        "message_stop",
    ]
    assert [event["index"] for event in told[1:-2]] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    start = told[0]["message"]
    assert (start["type"], start["role"], start["content"], start["stop_reason"]) == ("message", "assistant", [], None)
    assert [event["content_block"] for event in told[1:-2:3]] == [
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "text", "text": ""},
        {"type": "tool_use", "id": "c1", "name": "look", "input": {}},
        {"type": "tool_use", "id": "c2", "name": "look", "input": {}},
    ]
    assert [event["delta"] for event in told[2:-2:3]] == [
        {"type": "thinking_delta", "thinking": "Hm."},
        {"type": "text_delta", "text": "I look."},
        {"type": "input_json_delta", "partial_json": '{"at":1}'},
        {"type": "input_json_delta", "partial_json": "{}"},
    ]
    assert told[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert (told[-2]["usage"]["input_tokens"], told[-2]["usage"]["output_tokens"]) == (5, 7)


def test_a_reply_whole() -> None:
    told = whole(*CALLED)

    assert told["content"] == [
        {"type": "thinking", "thinking": "Hm.", "signature": ""},
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "c1", "name": "look", "input": {"at": 1}},
        {"type": "tool_use", "id": "c2", "name": "look", "input": {}},
    ]
    assert (told["stop_reason"], told["usage"]["output_tokens"]) == ("tool_use", 7)


@pytest.mark.parametrize(("finish", "reason"), [("stop", "end_turn"), ("length", "max_tokens")])
def test_why_a_reply_ended(finish: str, reason: str) -> None:
    assert whole(chunk({"content": "Hi"}), chunk({}, finish))["stop_reason"] == reason


def test_a_call_that_the_limit_cut_is_none() -> None:
    told = whole(*CALLED[1:3], chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"a'}}]}, "length"))

    assert [block["type"] for block in told["content"]] == ["text"]


def test_a_call_whose_arguments_are_no_json_is_an_error() -> None:
    with pytest.raises(RequestError, match="not JSON"):
        whole(*CALLED[2:3], chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{a"}}]}, "tool_calls"))


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (401, "authentication_error"), (404, "not_found_error"), (429, "rate_limit_error"),
     (502, "api_error")],
)  # fmt: skip
def test_an_error_in_the_shape_of_the_api(status: int, kind: str) -> None:
    assert error(RequestError("no", status)) == {"type": "error", "error": {"type": kind, "message": "no"}}


def test_a_reply_that_broke_off_ends_with_an_error() -> None:
    assert Reply("m", asked()).broken(RequestError("broke off", 502))["error"]["type"] == "api_error"
