"""What agents send that engines lose or refuse: each shape is asked once, as recorded from eleven agents, and judged.

A template that compares messages loses the tools where the content is a list; another refuses a second system message,
or leaves out a role that it does not know. The server may answer 200 all the same, so only the call that comes back, or
does not, and the number of tokens that were read show it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from mscli.agents.table import CHAT, MESSAGES, RESPONSES
from mscli.catalog.model import STAND_IN_COUNTS
from mscli.chat.reply import Target
from mscli.chat.selftest import Check, Wrong, tried
from mscli.chat.stream import ConnectionBroke, NobodyAnswers, Watchdog, posted
from mscli.frozen import frozen
from mscli.untrusted import error_words

LOST, REFUSED = "lost", "refused"
_LONGEST_REPLY, _TIMEOUT_S, _ANSWER_BYTES = 256, 120.0, 4 << 20
_CALL = re.compile(r'"tool_calls"\s*:\s*\[\s*\{|"type"\s*:\s*"(?:function_call|tool_use)"')
_ANSWER = re.compile(r'"content"\s*:\s*"[^"]')
_READ = re.compile(r'"(?:prompt|input)_tokens"\s*:\s*(\d+)')
_FAULT = re.compile(r'^data: (\{"error".*)$', re.MULTILINE)
_ASKED = "What is the weather in Paris? Use the tool."
_CALL_ID = "call_0123456789abcdef0123456789a"  # of 32 characters, as llama.cpp and OpenAI make them
_CITY: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
_ODD: dict[str, Any] = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "$defs": {"Unit": {"enum": ["C", "F"], "type": "string", "title": "Unit"}},
    "properties": {
        "city": {"type": "string", "minLength": 1},
        "unit": {"anyOf": [{"$ref": "#/$defs/Unit"}, {"type": "null"}], "default": None},
        "days": {"type": ["integer", "null"], "exclusiveMinimum": 0},
        "places": {"type": "array", "items": {"type": "object", "additionalProperties": False, "properties": {}}},
    },
    "required": ["city"],
    "additionalProperties": False,
}


def _tool(parameters: Mapping[str, Any], name: str = "get_weather") -> dict[str, Any]:
    about = {"name": name, "description": "The weather in a city now", "parameters": parameters}
    return {"type": "function", "function": about}


def _parts(text: str, kind: str = "text") -> list[dict[str, str]]:
    return [{"type": kind, "text": text}]


def _calls(*ids: str) -> dict[str, Any]:
    function = {"name": "get_weather", "arguments": '{"city": "Paris"}'}
    made = [{"id": each, "type": "function", "function": function} for each in ids]
    return {"role": "assistant", "content": None, "tool_calls": made}


def _result(of: str, content: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": of, "content": content}


def _chat(*messages: dict[str, Any], parameters: Mapping[str, Any] = _CITY) -> dict[str, Any]:
    return {"messages": list(messages), "tools": [_tool(parameters)], "tool_choice": "auto"}


_SYSTEM = {"role": "system", "content": "You are a coding agent."}
# More words than all tokens of the rest, so that it shows when they are left out.
_INSTRUCTIONS, _MORE_INSTRUCTIONS = "You are a coding agent. " * 30, "You are a coding agent. " * 98
_DEVELOPER = {"role": "developer", "content": _parts(_INSTRUCTIONS)}
_USER = {"role": "user", "content": _ASKED}
_LIST = {"role": "user", "content": _parts(_ASKED)}
_FLAT = {"type": "function", "name": "get_weather", "description": "The weather in a city", "parameters": _CITY}


@frozen
class Shape:
    """One request. `sent_by`: who sends such a one. `calls`: whether a tool call must come back, or only an answer.
    `tokens`: about how long the prompt is, where that matters."""

    name: str
    sent_by: str
    body: Mapping[str, Any]
    path: str = CHAT
    calls: bool = True
    tokens: int = 0


SHAPES = (
    Shape("content as a list", "pi, Qwen Code, gptme", _chat(_SYSTEM, _LIST)),
    Shape("two developer messages", "Codex", _chat(_DEVELOPER, _DEVELOPER, _USER)),
    Shape("three system messages", "gptme", _chat(_SYSTEM, _SYSTEM, _SYSTEM, _LIST)),
    Shape("user after user", "opencode, Codex", _chat(_SYSTEM, _USER, _USER)),
    Shape("system after assistant", "gptme", _chat(_USER, {"role": "assistant", "content": "Yes?"}, _SYSTEM, _USER)),
    Shape("odd schemas", "Vibe, Cline, opencode", _chat(_SYSTEM, _USER, parameters=_ODD)),
    Shape("a tool's result as a list", "pi, gptme",
          _chat(_SYSTEM, _USER, _calls(_CALL_ID), _result(_CALL_ID, _parts("sunny"))), calls=False),
    Shape("two calls at once", "all",
          _chat(_USER, _calls("abcdefgh1", "abcdefgh2"), _result("abcdefgh1", "sunny"), _result("abcdefgh2", "dry")),
          calls=False),
    Shape("/v1/responses", "Codex",
          {"input": [{"type": "message", **_DEVELOPER, "content": _parts(_MORE_INSTRUCTIONS, "input_text")},
                     {"type": "message", "role": "user", "content": _parts(_ASKED, "input_text")}],
           "tools": [_FLAT, {"type": "web_search"},
                     {"type": "namespace", "name": "more", "description": "", "tools": [{**_FLAT, "name": "other"}]}],
           "tool_choice": "auto", "parallel_tool_calls": True, "store": False,
           "include": ["reasoning.encrypted_content"]}, RESPONSES),
    Shape("/v1/messages", "Claude Code",
          {"system": _parts("You are a coding agent."), "messages": [{"role": "user", "content": _parts(_ASKED)}],
           "tools": [{"name": "get_weather", "description": "The weather in a city", "input_schema": _CITY}],
           "max_tokens": _LONGEST_REPLY}, MESSAGES),
    Shape("a system prompt of 14,000 tokens", "Qwen Code",
          _chat({"role": "system", "content": "Read the file first. " * 2800}, _USER), tokens=14_000),
)  # fmt: skip


def agent_checks(target: Target, stand_in: bool, listener: Callable[[str], None]) -> tuple[Check, ...]:
    """Ask an instance once in each shape; `listener` hears which.

    Waits for each answer; what goes wrong is a check that failed (LOST: the tools, or the answer; REFUSED: with the
    server's words), never raised. `stand_in`: its tokenizer counts three tokens for one.
    """
    times = STAND_IN_COUNTS if stand_in else 1
    return tried(
        ((shape.name, _too_small(target, shape, times), partial(_try, target, shape)) for shape in SHAPES), listener
    )


def _too_small(target: Target, shape: Shape, times: int) -> str | None:
    fits = not shape.tokens or shape.tokens * times + _LONGEST_REPLY < (target.context or 0)
    return None if fits else f"the context of {target.context:,} tokens is too small"


def _try(target: Target, shape: Shape) -> str:
    """What came back. Raises Wrong."""
    limit: dict[str, Any] = (
        {} if "max_tokens" in shape.body or shape.path == RESPONSES else {"max_tokens": _LONGEST_REPLY}
    )
    limit |= {"max_output_tokens": _LONGEST_REPLY} if shape.path == RESPONSES else {}
    limit |= {"stream_options": {"include_usage": True}} if shape.path == CHAT else {}
    body = {"model": target.model, "stream": True, **shape.body, **limit}
    url = target.base_url.removesuffix("/v1") + shape.path
    key = {"x-api-key": target.api_key} if target.api_key else None
    watchdog = Watchdog(target.base_url, target.health_path)
    answer = b""
    try:
        with watchdog, posted(url, body, target.api_key, watchdog, _TIMEOUT_S, key) as got:
            for block in got.blocks():
                answer += block
                if len(answer) > _ANSWER_BYTES:
                    break
    except (NobodyAnswers, ConnectionBroke) as fault:
        silent = "it does not respond: its health check went unanswered"
        seen = silent if watchdog.hung else str(fault)
        raise Wrong(seen[:200], REFUSED, watchdog.hung) from fault
    return _judged(shape, got.status, answer.decode(errors="replace"))


def _judged(shape: Shape, status: int, answer: str) -> str:
    if status != 200:
        words = " ".join(error_words(answer, 300).split())[:200]
        raise Wrong(f"HTTP {status}: {words or 'without a word'}", REFUSED)
    if fault := _FAULT.search(answer):
        raise Wrong(" ".join(error_words(fault[1], 300).split())[:200], REFUSED)
    if shape.calls and not _CALL.search(answer):
        raise Wrong("text came back instead of a tool call", LOST)
    if not shape.calls and not _ANSWER.search(answer):
        raise Wrong("no answer came back", LOST)
    if shape.path != MESSAGES:  # which may not count what was cached
        _all_read(_words(shape.body), max((int(count) for count in _READ.findall(answer)), default=0))
    return "a tool call came back" if shape.calls else "an answer came back"


def _all_read(words: int, tokens: int) -> None:
    """Raise Wrong where fewer tokens were read than there are words: a token is one word at most. 0: not told."""
    if 0 < tokens < words:
        raise Wrong(f"only {tokens} tokens were read of a prompt of {words} words: a part was left out", LOST)


def _words(body: Mapping[str, Any]) -> int:
    """The words of all messages of a request."""
    contents = [message.get("content") or "" for message in (*body.get("messages", ()), *body.get("input", ()))]
    texts = [[each] if isinstance(each, str) else [part["text"] for part in each] for each in contents]
    return sum(len(text.split()) for each in texts for text in each)
