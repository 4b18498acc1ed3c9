"""A chat completion request that uses every field, and each odd thing that a client may make of it."""

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
