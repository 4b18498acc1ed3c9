"""A request of each API that uses every field, and each odd thing that a client may make of it."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from typing import Any

from support.picture import png

FULL: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": png(), "detail": "low"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "a1b2c3d4e", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "a1b2c3d4e", "name": "look", "content": "a cat"},
    ],
    "tools": [{"type": "function", "function": {"name": "look", "description": "d", "parameters": {"type": "object"}}}],
    "tool_choice": "auto",
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
    "stream": False,
    "stream_options": {"include_usage": True},
    "max_tokens": 5,
    "max_completion_tokens": 5,
    "temperature": 0.15,
    "top_p": 0.9,
    "top_k": 40,
    "min_p": 0.05,
    "presence_penalty": 0,
    "frequency_penalty": 0.5,
    "stop": ["\n"],
    "seed": 7,
    "n": 1,
    "logprobs": False,
    "top_logprobs": 0,
    "logit_bias": {},
    "user": "me",
    "never_heard_of": {"a": [1]},
}  # fmt: skip
FLAT_LOOK = {"type": "function", "name": "look", "description": "d", "strict": False, "parameters": {"type": "object"}}
FULL_RESPONSES: dict[str, Any] = {
    "model": "m",
    "stream": True,
    "input": [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
        {
            "type": "message",
            "id": "msg_0",
            "role": "user",
            "content": [{"type": "input_text", "text": "What is this?"}, {"type": "input_image", "image_url": png()}],
        },
        {"type": "reasoning", "id": "rs_0", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "I look.", "annotations": []}],
        },
        {"type": "function_call", "id": "fc_0", "call_id": "c1", "name": "look", "arguments": "{}"},
        {"type": "function_call", "id": "fc_1", "call_id": "c2", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "a cat"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "a dog"}]},
    ],
    "tools": [
        FLAT_LOOK,
        {"type": "namespace", "name": "agents", "description": "d", "tools": [FLAT_LOOK]},
        {"type": "web_search", "external_web_access": False},
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": {"summary": "auto"},
    "store": False,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "k",
    "client_metadata": {"a": "b"},
    "max_output_tokens": 9,
    "temperature": 0.15,
    "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}},
}  # fmt: skip
MESSAGES_LOOK = {"name": "look", "description": "d", "input_schema": {"type": "object"}, "eager_input_streaming": True}
FULL_MESSAGES: dict[str, Any] = {
    "model": "m",
    "max_tokens": 1024,
    "stream": True,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?", "cache_control": {"type": "ephemeral"}},
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/png", "data": png().partition(",")[2]},
                },
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": ""},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "c1", "name": "look", "input": {"at": 1}},
                {"type": "tool_use", "id": "c2", "name": "look", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "a cat"},
                {
                    "type": "tool_result",
                    "tool_use_id": "c2",
                    "is_error": True,
                    "content": [{"type": "text", "text": "too dark"}],
                },
                {"type": "text", "text": "And now?"},
            ],
        },
    ],
    "tools": [MESSAGES_LOOK, {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "stop_sequences": ["END"],
    "temperature": 0.15,
    "top_k": 40,
    "thinking": {"type": "disabled"},
    "metadata": {"user_id": "me"},
}  # fmt: skip
ODD = (None, True, False, -1, 0, 1.5, 10**30, "", "x" * 300, [], [None], [[]], [{}], {}, {"a": 1}, {"type": "text"})
ODD_ENOUGH = (None, True, -1, "", [], [{}], {"type": "text"})


def variations(value: Any, odd_things: tuple[Any, ...] = ODD) -> Iterator[Any]:
    """The value with one part of it changed into something odd or left out, for every part and every odd thing."""
    yield from odd_things
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        for odd in variations(value[key], odd_things):
            made = copy(value)
            made[key] = odd
            yield made
        if isinstance(value, dict):
            yield {other: part for other, part in value.items() if other != key}
