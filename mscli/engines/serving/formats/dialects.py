"""How each engine that is a server is asked for a reply, and how its answer is read, line by line.

vLLM reads a conversation by mistral_common: what that refuses is put otherwise, and what it takes passes as it is, so
that the prompt is the same as without the gateway.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from mscli.engines.serving.chat_request import Body, role
from mscli.engines.serving.formats import ollama
from mscli.engines.serving.formats.chunks import CHAT, Chunk, event
from mscli.frozen import frozen

NO_RESULT = "(no result)"
_ID_LENGTH = 9
_ANSWERS = ("assistant", "tool")


def accepted(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages: the role `developer` is the system's, and the id of a call has nine letters and digits.

    A system message behind an answer, or behind the result of a tool, is the user's and stays in its place; so does a
    result that no call waits for. A call without a result gets one. An answer without words or calls is left out.
    """
    talk = _Talk()
    for message in messages:
        talk.add(message, role(message))
    return talk.made


class _Talk:
    """What was said so far, and the ids of calls that wait for their results."""

    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []
        self._waiting: list[str] = []
        self._put = False  # whether the last one was a system message, put as the user's

    def add(self, message: Mapping[str, Any], told: str) -> None:
        if told == "tool":
            self._add_result(message)
            return
        self.made += [{"role": "tool", "tool_call_id": each, "content": NO_RESULT} for each in self._waiting]
        behind = bool(self.made) and self.made[-1]["role"] in _ANSWERS
        self._put = told == "system" and (self._put or behind)
        calls = [{**call, "id": _short(call.get("id"))} for call in message.get("tool_calls") or ()]
        self._waiting = [call["id"] for call in calls]
        if told != "assistant" or message.get("content") or calls:
            called = {"tool_calls": calls} if calls else {}
            self.made.append({**message, "role": "user" if self._put else told, **called})

    def _add_result(self, message: Mapping[str, Any]) -> None:
        self._put = False
        if (identity := _short(message.get("tool_call_id"))) in self._waiting:
            self._waiting.remove(identity)
            self.made.append({**message, "tool_call_id": identity})
        else:
            self.made.append({"role": "user", "content": message.get("content") or ""})


def _short(identity: str | None) -> str:
    """Its last nine letters and digits: tokenizers before v13 take no other id. A call and its result get the same."""
    return re.sub("[^a-zA-Z0-9]", "", identity or "")[-_ID_LENGTH:].rjust(_ID_LENGTH, "0")


Reader = Callable[[bytes], Chunk | None]


def _openai(path: str, body: Body, _alias: str, _context: int) -> tuple[str, Body]:
    """Always as a stream, which ends when the gateway leaves it."""
    tools = {"tools": None, "tool_choice": None} if body.get("tool_choice") == "none" else {}
    asked = {**body, **tools, "stream": True, "stream_options": {"include_usage": True}}
    return path, {name: value for name, value in asked.items() if value is not None}


def _vllm(path: str, body: Body, alias: str, context: int) -> tuple[str, Body]:
    """vLLM refuses conversations that other engines take, and a limit of the reply above its context."""
    limits = {name: body[name] for name in ("max_tokens", "max_completion_tokens") if body.get(name)}
    within = {name: min(limit, context) for name, limit in limits.items()}
    talk = {"messages": accepted(body["messages"])} if path == CHAT else {}
    return _openai(path, {**body, **within, **talk}, alias, context)


def _event(line: bytes) -> Chunk | None:
    """The chunk of a line; None for one that holds none."""
    data = line.removeprefix(b"data:").strip()
    return None if data in (line, b"[DONE]") else event(data)


@frozen
class Dialect:
    """`request`: path and body for the engine, from a checked request for CHAT or COMPLETION, the model's name and the
    context in tokens; `reader`: makes what reads the lines of one reply; `formats`, `honors`: see `chat_request.check`;
    `own_api`: whether clients may speak Ollama's API, by which its model is also loaded."""

    request: Callable[[str, Body, str, int], tuple[str, Body]] = _openai
    reader: Callable[[], Reader] = lambda: _event
    formats: Collection[str] = ("text", "json_object", "json_schema")
    honors: Collection[str] = ("n", "logprobs", "top_logprobs", "logit_bias", "tool_choice")
    own_api: bool = False


DIALECTS: Mapping[str, Dialect] = {
    "openai": Dialect(),  # llama.cpp, mistral.rs
    "vllm": Dialect(_vllm),
    "ollama": Dialect(ollama.request, ollama.Reader, honors=("logprobs", "top_logprobs"), own_api=True),
}
