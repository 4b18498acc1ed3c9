"""What a client gets from llama.cpp with the rehearsal model: chat, streams, tools, images, limits."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.llamacpp.llama_servers import Server, png

HELLO = "Hello! This is a scripted stand-in, not a language model"
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather in a city",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


def test_a_message_is_answered_and_says_that_it_is_a_stand_in(server: Server) -> None:
    message = server.chat("Hello, who are you?").message

    assert message["content"].startswith(HELLO)
    assert message["content"].endswith("nine, ten and stops.")


def test_a_stream_gives_the_same_text_piece_by_piece(server: Server) -> None:
    events = server.chat("Hello", stream=True).events
    pieces = [event["choices"][0]["delta"].get("content") or "" for event in events if event["choices"]]

    assert "".join(pieces) == server.chat("Hello").message["content"]
    assert sum(bool(piece) for piece in pieces) > 10


def test_a_tool_is_called_when_tools_are_offered(server: Server) -> None:
    [call] = server.chat("What is the weather in Paris?", tools=TOOLS).message["tool_calls"]

    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}


def test_a_tool_result_is_answered(server: Server) -> None:
    call = {
        "id": "abcdefghi",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
    }
    messages = [
        {"role": "user", "content": "What is the weather in Paris?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "abcdefghi", "name": "get_weather", "content": "sunny, 21 degrees"},
    ]
    answer = server.request("/v1/chat/completions", {"messages": messages, "tools": TOOLS, "max_tokens": 64})

    assert answer.message["content"] == "The weather in Paris is sunny, 21 degrees."


def test_an_image_is_seen(server: Server) -> None:
    picture = {"type": "image_url", "image_url": {"url": png()}}
    answer = server.chat([{"type": "text", "text": "What is this?"}, picture])

    assert answer.message["content"] == "I can see one image in this request."


def test_a_second_turn_without_image_is_answered_as_usual(server: Server) -> None:
    messages = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello! I am here."},
        {"role": "user", "content": "And now?"},
    ]
    answer = server.request("/v1/chat/completions", {"messages": messages, "max_tokens": 64})

    assert answer.message["content"].startswith(HELLO)


def test_a_prompt_beyond_the_context_is_refused_with_both_numbers(server: Server) -> None:
    answer = server.chat("word " * 3000)

    assert answer.status == 400
    assert answer.data["error"]["type"] == "exceed_context_size_error"
    assert answer.data["error"]["n_ctx"] == 2048


def test_text_outside_the_script_goes_on_until_the_limit(server: Server) -> None:
    answer = server.request("/v1/completions", {"prompt": "The weather in", "max_tokens": 200, "temperature": 0})

    assert answer.data["choices"][0]["finish_reason"] == "length"
    assert answer.data["usage"]["completion_tokens"] == 200


@pytest.mark.parametrize(("origin", "allowed"), [("http://localhost:3000", True), ("https://example.org", False)])
def test_only_pages_of_this_machine_may_use_it_without_a_key(server: Server, origin: str, allowed: bool) -> None:
    headers = server.preflight("/v1/chat/completions", origin)

    assert (headers.get("Access-Control-Allow-Origin") == origin) is allowed


def test_the_model_is_listed_under_its_alias(server: Server) -> None:
    assert [model["id"] for model in server.request("/v1/models").data["data"]] == ["tiny"]
