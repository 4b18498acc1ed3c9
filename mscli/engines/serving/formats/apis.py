"""The APIs that clients are answered in: each as a chat completion request and back; and what a client of OpenAI's
chat completions (and plain completions) is answered, out of an engine's chunks.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Protocol

from mscli.engines.serving.chat_request import Body, RequestError
from mscli.engines.serving.formats import messages, responses
from mscli.engines.serving.formats.chunks import CHAT, COMPLETION, Chunk

RESPONSES, MESSAGES, OLLAMA = "/v1/responses", "/v1/messages", "/api/"


class Reply(Protocol):
    """What the chunks of one reply are told as. `last`: what ends a stream that is whole."""

    last: bytes

    def feed(self, made: Chunk) -> Iterator[Chunk]:
        """The events that a chunk makes."""

    def end(self) -> Iterator[Chunk]:
        """The events at the end of a stream that is whole."""

    def broken(self, fault: RequestError) -> Chunk:
        """The last event of a stream that broke off."""

    def whole(self) -> Chunk:
        """The reply that was not streamed."""


def _chat_error(fault: RequestError) -> Chunk:
    """A refusal, in the shape of OpenAI's API."""
    kind = "invalid_request_error" if fault.status < 500 else "server_error"
    return {"error": {"message": str(fault), "type": kind, "param": None, "code": fault.code or fault.status}}


class ChatReply:
    """The events of a streamed reply, or the whole one. `asked`: the request."""

    object, identity, last = "chat.completion", "chatcmpl", b"data: [DONE]\n\n"
    empty: ClassVar[Chunk] = {"message": {"role": "assistant", "content": ""}}

    def __init__(self, alias: str, asked: Body) -> None:
        self._stream = bool(asked.get("stream"))
        self._told = bool((asked.get("stream_options") or {}).get("include_usage"))
        kind = self.object + (".chunk" if self._stream and self.object == ChatReply.object else "")
        identity = f"{self.identity}-{uuid.uuid4().hex}"
        self._frame = {"id": identity, "object": kind, "created": int(time.time()), "model": alias}
        self._numbers: Chunk = {}
        self._choices: dict[int, Chunk] = {}

    def feed(self, made: Chunk) -> Iterator[Chunk]:
        """The events that a chunk makes."""
        self._numbers = {"usage": made.pop("usage")} if made.get("usage") else self._numbers
        for choice in made.get("choices") or ():
            index = choice.get("index", 0)
            first = index not in self._choices
            held = self._choices.setdefault(index, {"index": index, **_copy(self.empty), "finish_reason": None})
            if not self._stream:
                _add(held, choice)
            elif first and "delta" in choice:
                choice["delta"] = {"role": "assistant", **choice["delta"]}
        if self._stream and made.get("choices"):
            yield {**made, **self._frame}

    def end(self) -> Iterator[Chunk]:
        """The events at the end of a stream that is whole; `last` follows on them."""
        if self._told:
            yield {**self._frame, "choices": [], **self._numbers}

    def broken(self, fault: RequestError) -> Chunk:
        """The last event of a stream that broke off."""
        return {"error": {**_chat_error(fault)["error"], "type": "server_error"}}

    def whole(self) -> Chunk:
        """The reply that was not streamed."""
        choices = [self._choices[index] for index in sorted(self._choices)]
        for message in (choice.get("message") or {} for choice in choices):
            if message.get("tool_calls"):
                message["content"] = message["content"] or None
        return {**self._frame, "choices": choices, **self._numbers}


class PlainReply(ChatReply):
    """The same of a plain completion."""

    object, identity, empty = "text_completion", "cmpl", {"text": ""}


def _copy(held: Chunk) -> Chunk:
    return {name: dict(part) if isinstance(part, dict) else part for name, part in held.items()}


def _add(held: Chunk, choice: Chunk) -> None:
    """Add what a chunk brings of one choice."""
    held["finish_reason"] = choice.get("finish_reason") or held["finish_reason"]
    if "text" in choice:
        held["text"] += choice["text"] or ""
    if probable := (choice.get("logprobs") or {}).get("content"):
        held.setdefault("logprobs", {"content": []})["content"] += probable
    for name, part in (choice.get("delta") or {}).items():
        if name == "tool_calls":
            for call in part or ():
                _add_call(held["message"].setdefault("tool_calls", []), call)
        elif name != "role" and isinstance(part, str):
            held["message"][name] = held["message"].get(name, "") + part


def _add_call(calls: list[Any], part: Chunk) -> None:
    """Add to the call with this part's number, or begin it."""
    number = part.get("index", len(calls))
    if number >= len(calls):
        calls.append({"id": part.get("id"), "type": "function", "function": {"name": "", "arguments": ""}})
    for name, text in (part.get("function") or {}).items():
        calls[min(number, len(calls) - 1)]["function"][name] += text or ""


# Path -> the request as a chat completion (or a plain one), and the reply in its own shape.
APIS: Mapping[str, tuple[Callable[[Body], Body], Callable[[str, Body], Reply]]] = {
    CHAT: (dict, ChatReply),
    COMPLETION: (dict, PlainReply),
    RESPONSES: (responses.request, responses.Reply),
    MESSAGES: (messages.request, messages.Reply),
}


def error(fault: RequestError, path: str) -> Chunk:
    """A refusal in the shape of the API that `path` belongs to."""
    if path.startswith(OLLAMA):
        return {"error": str(fault)}
    return messages.error(fault) if path.startswith(MESSAGES) else _chat_error(fault)


def sent(event: Chunk) -> bytes:
    """A server-sent event."""
    name = f"event: {event['type']}\n" if "type" in event else ""
    return f"{name}data: {json.dumps(event, ensure_ascii=False)}\n\n".encode()


def json_object(raw: bytes) -> Body:
    """A request. Raises RequestError for anything else, for numbers that are none, and for halves of characters."""

    def no_number(word: str) -> None:
        raise ValueError(f"{word} is not a number")

    try:
        body = json.loads(raw, parse_constant=no_number)
        if not isinstance(body, dict):
            raise ValueError("it is something else")
        if re.search(rb"\\u[dD][89a-fA-F]", raw):
            json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as fault:
        raise RequestError(f"the body is no JSON object: {fault}") from None
    return body
