"""Conversations of every kind that clients send, made from a seed."""

from __future__ import annotations

import json
import random
from typing import Any

Message = dict[str, Any]
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
_TEXTS = (
    "What is the weather in Paris?", "Write a haiku.\n\nThen stop.", "Grüße, 東京 and 🙂", " leading and trailing ", "",
    'quotes " and \\ backslashes', "<b>tags</b> & 'apostrophes'", "{% not jinja %} {{ at all }}", "a\tb\r\nc",
)  # fmt: skip
_TOOLS: tuple[Message, ...] = (
    {
        "name": "get_weather",
        "description": "The weather <now> & here's why",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
    {"name": "stop", "parameters": {"type": "object", "properties": {}}},
    {
        "name": "search-web_2",
        "description": "Sucht überall",
        "strict": True,
        "parameters": {
            "type": "object",
            "$defs": {"a": {"anyOf": [{"type": "integer"}, {"type": "null"}]}},
            "properties": {"a": {"$ref": "#/$defs/a"}, "b": {"enum": [1, 2.5, True, None]}},
            "additionalProperties": False,
        },
    },
)
_ARGUMENTS = ('{"city": "Paris"}', "{}", '{"a": [1, 2.5, null], "b": {"c": "ü"}}', '{"text": "<x> & \'y\'"}')


class Maker:
    """Conversations as a client may send them, with `pictures`, with the assistant's `thoughts` as blocks."""

    def __init__(self, seed: int, *, pictures: bool = True, thoughts: bool = False) -> None:
        self._random = random.Random(seed)
        self._pictures = pictures
        self._thoughts = thoughts

    def conversation(self) -> tuple[list[Message], list[Message]]:
        """Messages and tools."""
        pick = self._random
        tools = [{"type": "function", "function": tool} for tool in _TOOLS if pick.random() < 0.4]
        messages = [self._system() for _ in range(pick.choice((0, 0, 1, 1, 2)))]
        for _ in range(pick.randint(1, 4)):
            messages += [self._user() for _ in range(pick.choice((1, 1, 1, 2, 3)))]
            messages += self._reply(calls=pick.random() < 0.5)
        if pick.random() < 0.8 and messages[-1]["role"] == "assistant":
            messages += [self._user() for _ in range(pick.choice((1, 1, 2)))]
        return messages, tools

    def _system(self) -> Message:
        return {"role": self._random.choice(("system", "system", "developer")), "content": self._content()}

    def _user(self) -> Message:
        return {"role": "user", "content": self._content(pictures=self._pictures)}

    def _content(self, *, pictures: bool = False) -> str | list[Message]:
        pick = self._random
        if pick.random() < 0.5:
            return pick.choice(_TEXTS)
        blocks: list[Message] = [{"type": "text", "text": pick.choice(_TEXTS)} for _ in range(pick.randint(1, 3))]
        if pictures:
            for _ in range(pick.choice((0, 0, 1, 1, 2))):
                blocks.insert(pick.randint(0, len(blocks)), PICTURE)
        return blocks

    def _reply(self, *, calls: bool) -> list[Message]:
        """The assistant's turn: words, or calls with their results and words on those."""
        said = self._said()
        if not calls:
            return [said, *([self._said()] if self._random.random() < 0.2 else [])]
        made = [self._call() for _ in range(self._random.choice((1, 1, 2, 3)))]
        asking = {"role": "assistant", "content": self._random.choice((None, "", "Let me look.")), "tool_calls": made}
        results = [{"role": "tool", "tool_call_id": call["id"], "content": self._result()} for call in made]
        self._random.shuffle(results)
        return [asking, *results, *([said] if self._random.random() < 0.7 else [])]

    def _said(self) -> Message:
        text = self._random.choice(_TEXTS) or "Yes."
        if not self._thoughts or self._random.random() < 0.4:
            return {"role": "assistant", "content": text}
        thinking = {"type": "thinking", "thinking": self._random.choice(_TEXTS), "closed": self._random.random() < 0.8}
        answer = [{"type": "text", "text": text}] if thinking["closed"] else []  # who was cut short said no more
        return {"role": "assistant", "content": [thinking, *answer]}

    def _call(self) -> Message:
        letters = "".join(self._random.choice("abcdefghijkLMNOPQRST0123456789") for _ in range(9))
        tool = self._random.choice(_TOOLS)["name"]
        return {
            "id": letters, "type": "function",
            "function": {"name": tool, "arguments": self._random.choice(_ARGUMENTS)},
        }  # fmt: skip

    def _result(self) -> str | list[Message]:
        text = self._random.choice(("18 degrees", '{"temp": 18}', "", "ein Ergebnis — ü"))
        return (
            text if self._random.random() < 0.6 else [{"type": "text", "text": text}, {"type": "text", "text": "more"}]
        )


def with_parsed_arguments(messages: list[Message]) -> list[Message]:
    """The same conversation, the calls' arguments as objects: so engines hand them to a template."""
    parsed = json.loads(json.dumps(messages))
    for message in parsed:
        for call in message.get("tool_calls") or ():
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return parsed
