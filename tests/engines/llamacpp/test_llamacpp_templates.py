"""The chat templates in llama.cpp: its own Jinja renders them alike, and calls come back however models write them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from support.llamacpp.llama_servers import PLAN, Rehearsal, Server, rehearsal, weight_files
from support.run_mscli import Mscli
from support.templates.conversations import Maker, Message, with_parsed_arguments
from support.templates.rendering import render
from support.tiny_models import TinyModels

from mscli.engines.engine import Installation
from mscli.engines.templates import chat_template

# A tiny model that writes as the real one of this profile does.
KINDS = {
    "v7": ("text", "small-gguf-q4"),
    "v11": ("magistral2506", "magistral-gguf-q4"),
    "v13": ("magistral", "devstral-q4"),
}
WEATHER: Message = {
    "name": "get_weather",
    "description": "The weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
TOOLS = [{"type": "function", "function": WEATHER}]
QUESTION: tuple[Any, ...] = (
    "What is the weather in Paris?",
    [{"type": "text", "text": "What is the weather in Paris?"}],
)


@pytest.fixture(scope="module", params=list(KINDS))
def server(
    request: pytest.FixtureRequest,
    found: Installation,
    tiny_model: TinyModels,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, Server]]:
    kind, like = KINDS[request.param]
    starter: Rehearsal = rehearsal(found, tmp_path_factory.mktemp("templates"))
    with starter.start(weight_files(tiny_model(kind)), replace(PLAN, images=0, context=4096), like=like) as started:
        started.wait_for(200)
        yield request.param, started


def test_prompts_are_what_the_reference_environment_renders(server: tuple[str, Server]) -> None:
    version, asked = server
    for seed in range(40):
        messages, tools = Maker(seed, pictures=False).conversation()
        if messages[-1]["role"] == "assistant":  # llama.cpp goes on with it instead
            continue
        answer = asked.request("/apply-template", {"messages": messages, **({"tools": tools} if tools else {})})
        expected = render(chat_template(version, "think-text"), with_parsed_arguments(messages), tools)

        assert answer.data["prompt"] == expected.removeprefix("<s>"), f"conversation {seed}"


@pytest.mark.parametrize("content", QUESTION, ids=["a string", "a list"])
@pytest.mark.parametrize("choice", ["auto", "required"])
def test_a_call_comes_back_as_a_call(server: tuple[str, Server], content: Any, choice: str) -> None:
    [call] = server[1].chat(content, tools=TOOLS, tool_choice=choice).message["tool_calls"]

    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}


def test_a_streamed_call_comes_back_as_a_call(server: tuple[str, Server]) -> None:
    events = server[1].chat(QUESTION[1], tools=TOOLS, stream=True).events
    deltas = [
        call["function"]
        for event in events
        for choice in event["choices"]
        for call in choice["delta"].get("tool_calls", ())
    ]

    assert [delta["name"] for delta in deltas if delta.get("name")] == ["get_weather"]
    assert json.loads("".join(delta.get("arguments", "") for delta in deltas)) == {"city": "Paris"}


def test_a_result_is_answered_whatever_the_length_of_its_id(server: tuple[str, Server]) -> None:
    [call] = server[1].chat(QUESTION[0], tools=TOOLS).message["tool_calls"]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": QUESTION[1]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": [{"type": "text", "text": "sunny"}]},
    ]
    answer = server[1].request("/v1/chat/completions", {"messages": messages, "tools": TOOLS, "max_tokens": 64})

    assert len(call["id"]) > 9
    assert answer.message["content"].endswith("The weather in Paris is sunny, 21 degrees.")


def test_the_template_inside_the_file_is_taken_when_asked_for_and_check_says_what_it_loses(mscli: Mscli) -> None:
    assert mscli("up", "rehearsal", "--template", "gguf").code == 0
    checks = mscli("check", "--for", "agents", "--json").envelope["data"]
    found = {each["name"]: each["status"] for each in checks["checks"]}

    assert found["content as a list"] == "lost"
    assert "GGUF" in checks["notes"][0]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("rehearsal", "--template", "mine"), "no template 'mine'"),
        (("small-q4", "--template", "gguf"), "only llama.cpp reads a template"),
    ],
)
def test_a_template_that_cannot_be_taken_is_refused(
    mscli: Mscli, machine: Callable[..., dict[str, str]], args: tuple[str, ...], words: str
) -> None:
    refused = mscli("up", *args, "--json", "--dry-run", env=machine("rtx4090"))

    assert refused.error["code"] == "usage"
    assert words in refused.error["message"]
