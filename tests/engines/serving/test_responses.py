"""OpenAI's /v1/responses in terms of chat completions: what becomes of a request, and of a reply's chunks."""

from __future__ import annotations

from typing import Any

import pytest
from support.engines.odd_requests import FLAT_LOOK as LOOK
from support.engines.odd_requests import FULL_RESPONSES as CODEX
from support.engines.odd_requests import ODD_ENOUGH, variations
from support.picture import png

from mscli.engines.serving.chat_request import RequestError, check
from mscli.engines.serving.formats.chunks import Chunk, chunk, usage
from mscli.engines.serving.formats.responses import Reply, request


def asked(**more: Any) -> dict[str, Any]:
    return {"model": "m", "input": "hello", **more}


def events(*chunks: Chunk, **more: Any) -> list[Chunk]:
    reply = Reply("m", asked(**more))
    return [*(event for made in chunks for event in reply.feed(made)), *reply.end()]


def whole(*chunks: Chunk, **more: Any) -> Chunk:
    reply = Reply("m", asked(**more))
    for made in chunks:
        list(reply.feed(made))
    return reply.whole()


def call(number: int, arguments: str, **opened: str) -> Chunk:
    function = {**({"name": opened["name"]} if opened else {}), "arguments": arguments}
    identity = {"id": opened["id"]} if opened else {}
    return chunk({"tool_calls": [{"index": number, **identity, "function": function}]})


END = chunk({}, "stop", **usage(5, 7))


def test_what_codex_sends_is_one_conversation() -> None:
    made = request(CODEX)

    calls = [{"id": f"c{n}", "type": "function", "function": {"name": "look", "arguments": "{}"}} for n in (1, 2)]
    assert made["messages"] == [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": png()}}],
        },
        {"role": "assistant", "content": "I look.", "reasoning_content": "Hm.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "a cat"},
        {"role": "tool", "tool_call_id": "c2", "content": "a dog"},
    ]
    assert {name: made[name] for name in ("stream", "temperature", "max_completion_tokens", "tool_choice")} == {
        "stream": True, "temperature": 0.15, "max_completion_tokens": 9, "tool_choice": "auto",
    }  # fmt: skip
    schema = {"name": "n", "schema": {"type": "object"}, "strict": True}
    assert made["response_format"] == {"type": "json_schema", "json_schema": schema}
    check(made, 1, ("text", "json_schema"))


def test_only_functions_among_the_tools_are_offered() -> None:
    made = request(CODEX)

    assert [tool["function"]["name"] for tool in made["tools"]] == ["look"]
    assert Reply("m", CODEX).whole()["tools"] == [LOOK]


def test_without_a_function_nothing_is_said_of_tools() -> None:
    made = request(asked(tools=[{"type": "web_search"}], tool_choice="auto", parallel_tool_calls=True))

    assert "tools" not in made
    assert "tool_choice" not in made
    assert "parallel_tool_calls" not in made


def test_a_text_and_instructions() -> None:
    assert request(asked(instructions="Be brief."))["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello"},
    ]


def test_a_function_can_be_demanded() -> None:
    made = request(asked(tools=[LOOK], tool_choice={"type": "function", "name": "look"}))

    assert made["tool_choice"] == {"type": "function", "function": {"name": "look"}}


def test_a_turn_that_begins_with_thoughts_is_a_message_of_its_own() -> None:
    thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]}
    said = {"role": "assistant", "content": "Yes."}
    made = request(asked(input=[{"role": "user", "content": "a"}, said, thought, said]))["messages"]

    assert made[1:] == [said, {**said, "reasoning_content": "Hm."}]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"input": None}, "`input` is missing"),
        ({"input": 7}, "`input` must be"),
        ({"input": [{"role": "robot", "content": "a"}]}, "`input` must be"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "'item_reference'"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, "'input_file'"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}, "'input_image'"),
        ({"previous_response_id": "resp_1"}, "send the whole conversation"),
        ({"conversation": "conv_1"}, "send the whole conversation"),
        ({"background": True}, "`background`"),
        ({"top_logprobs": 2}, "no probabilities"),
        ({"include": ["message.output_text.logprobs"]}, "probabilities"),
        ({"max_output_tokens": "9"}, "`max_output_tokens` must be"),
        ({"tool_choice": "required"}, "`tools` holds no function"),
        ({"tool_choice": {"type": "web_search"}}, "'web_search'"),
    ],
)
def test_what_cannot_be_had_is_refused_by_its_own_name(body: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words) as raised:
        request(asked(**body))

    assert raised.value.status == 400


def test_no_odd_request_is_a_fault_of_the_server() -> None:
    good = 0
    for body in variations(CODEX, ODD_ENOUGH):
        if isinstance(body, dict):
            try:
                check(request(body), 1, ("text", "json_schema"))
                Reply("m", body).whole()
                good += 1
            except RequestError as fault:
                assert fault.status == 400  # noqa: PT017

    assert good > 100


def test_a_text_event_by_event() -> None:
    told = events(
        chunk({"role": "assistant", "content": None}), chunk({"content": "Hel"}), chunk({"content": "lo"}), END
    )

    assert [event["type"] for event in told] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event["sequence_number"] for event in told] == list(range(10))
    item = told[2]["item"]
    assert (item["type"], item["role"], item["content"], item["status"]) == ("message", "assistant", [], "in_progress")
    place = {"output_index": 0, "content_index": 0, "item_id": item["id"]}
    assert [{name: event[name] for name in place} for event in told[3:8]] == [place] * 5
    assert [event["delta"] for event in told[4:6]] == ["Hel", "lo"]
    assert told[6]["text"] == told[7]["part"]["text"] == told[8]["item"]["content"][0]["text"] == "Hello"
    assert (told[0]["response"]["status"], told[0]["response"]["output"], told[0]["response"]["usage"]) == (
        "in_progress", [], None,
    )  # fmt: skip
    done = told[-1]["response"]
    assert (done["status"], done["output"], done["id"]) == ("completed", [told[8]["item"]], told[0]["response"]["id"])
    assert (done["usage"]["input_tokens"], done["usage"]["output_tokens"], done["usage"]["total_tokens"]) == (5, 7, 12)


def test_thoughts_and_two_calls_event_by_event() -> None:
    told = events(
        chunk({"reasoning_content": "Hm."}),
        call(0, "", id="c1", name="look"),
        call(0, '{"at":'),
        call(0, "1}"),
        call(1, "{}", id="c2", name="look"),
        chunk({}, "tool_calls", **usage(5, 7)),
    )

    assert [event["type"].removeprefix("response.") for event in told[2:-1]] == [
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]
    assert [event["output_index"] for event in told[2:-1]] == [0] * 6 + [1] * 5 + [2] * 4
    assert told[11]["arguments"] == '{"at":1}'
    thought, *calls = told[-1]["response"]["output"]
    assert (thought["type"], thought["content"][0]["text"]) == ("reasoning", "Hm.")
    assert [(each["call_id"], each["name"], each["arguments"]) for each in calls] == [
        ("c1", "look", '{"at":1}'),
        ("c2", "look", "{}"),
    ]


def test_a_reply_is_whole_as_its_last_event_tells_it() -> None:
    chunks = (chunk({"content": "Hello"}), END)
    streamed, at_once = events(*chunks)[-1]["response"], whole(*chunks)

    different = {"id", "created_at", "output"}
    assert {**streamed, **dict.fromkeys(different)} == {**at_once, **dict.fromkeys(different)}
    assert at_once["output"][0]["content"][0]["text"] == "Hello"


def test_a_reply_that_reached_its_limit_is_incomplete() -> None:
    told = events(chunk({"content": "Hel"}), chunk({}, "length", **usage(5, 1)), max_output_tokens=1)

    assert told[-1]["type"] == "response.incomplete"
    assert told[-1]["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert told[-1]["response"]["max_output_tokens"] == 1


def test_a_reply_that_broke_off_has_failed() -> None:
    reply = Reply("m", asked())
    list(reply.feed(chunk({"content": "Hel"})))
    told = reply.broken(RequestError("the reply broke off", 502))

    assert told["type"] == "response.failed"
    assert told["response"]["status"] == "failed"
    assert told["response"]["error"] == {"code": "server_error", "message": "the reply broke off"}
