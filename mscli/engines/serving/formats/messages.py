"""Anthropic's /v1/messages, in terms of chat completions: the request, and the reply as events and whole.

Tools that the server would have to run (web search, a shell ...) are left out. There is no counting of tokens: not
every engine can tell how long a prompt is before it answers.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from mscli.engines.serving.chat_request import (
    Body,
    Fields,
    RequestError,
    as_content,
    called,
    count,
    fit,
    holds,
    is_object,
    list_of,
    switch,
    text,
)
from mscli.engines.serving.formats.chunks import BEGIN, CALL, END, GROW, TEXT, THOUGHTS, Chunk, Part, Parts

_SOURCE = holds(dict.fromkeys(("type", "media_type", "data", "url"), text), ("type",))
_NAMED = dict.fromkeys(("type", "text", "thinking", "id", "name", "tool_use_id"), text)
_BLOCK = holds({**_NAMED, "source": _SOURCE, "input": is_object}, ("type",))


def _blocks(of: Any) -> Any:
    return lambda value: text(value) or list_of(of)(value)


_MESSAGE = holds(
    {
        "role": lambda value: value in ("user", "assistant", "system"),
        "content": _blocks(lambda value: _BLOCK(value) and holds({"content": _blocks(_BLOCK)})(value)),
    },
    ("role", "content"),
)
_FIELDS: Fields = {
    "messages": (
        lambda value: bool(value) and list_of(_MESSAGE)(value),
        "a list of at least one message, each with a role and content",
    ),
    "system": (_blocks(_BLOCK), "a text, or a list of texts"),
    "max_tokens": (count, "a whole number from 1"),
    "stop_sequences": (list_of(text), "a list of texts"),
    "tools": (list_of(holds({**_NAMED, "input_schema": is_object})), "a list of tools"),
    "tool_choice": (holds({**_NAMED, "disable_parallel_tool_use": switch}, ("type",)), "an object with a type"),
    "output_config": (holds({"format": holds({"type": text, "schema": is_object}, ("type",))}), "an object"),
}
_SAME = ("model", "stream", "temperature", "top_p", "top_k")
_ERRORS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def error(fault: RequestError) -> Chunk:
    """A refusal, in the shape of Anthropic's API."""
    kind = _ERRORS.get(fault.status, "invalid_request_error" if fault.status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": str(fault)}}


def request(body: Body) -> Body:
    """The same as a chat completion request. Raises RequestError."""
    fit(body, _FIELDS)
    if body.get("messages") is None:
        raise RequestError("`messages` is missing")
    for name in ("mcp_servers", "container"):
        if body.get(name):
            raise RequestError(f"`{name}` is not supported: tools are run by the client")
    made = {name: body[name] for name in _SAME if body.get(name) is not None}
    if limit := body.get("max_tokens"):
        made["max_completion_tokens"] = limit
    if stops := body.get("stop_sequences"):
        made["stop"] = stops
    if form := (body.get("output_config") or {}).get("format"):
        made["response_format"] = {"type": form["type"], "json_schema": {"name": "reply", "schema": form.get("schema")}}
    messages: list[Chunk] = [{"role": "system", "content": _content(body["system"])}] if body.get("system") else []
    for message in body["messages"]:
        _add(message, messages)
    return {**made, "messages": messages, **_tools(body)}


def _tools(body: Body) -> Chunk:
    """The client's own tools, and which of them may or must be called."""
    own = [tool for tool in body.get("tools") or () if tool.get("type") in (None, "custom")]
    asked = body.get("tool_choice") or {"type": "auto"}
    named = {"type": "function", "function": {"name": asked.get("name")}}
    choice: Any = {"auto": "auto", "none": "none", "any": "required", "tool": named}.get(asked["type"])
    if choice is None:
        raise RequestError(f"`tool_choice` of type {asked['type']!r:.40} is not supported: auto, any, tool or none")
    fields = {"name": "name", "description": "description", "parameters": "input_schema"}
    parallel = False if asked.get("disable_parallel_tool_use") else None
    return called(own, fields, choice, parallel, "none of the client's own")


def _add(message: Mapping[str, Any], made: list[Chunk]) -> None:
    """Add what a message says: results of tools are messages of their own, before what else the user says."""
    role, given = message["role"], message["content"]
    blocks = given if isinstance(given, list) else [{"type": "text", "text": given}]
    for block in blocks if role != "assistant" else ():
        if block["type"] == "tool_result":
            content = _content(block.get("content") or "")
            made.append({"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": content})
    kinds = ("tool_result", "tool_use", "thinking", "redacted_thinking")
    said: Chunk = {"role": role, "content": _content([block for block in blocks if block["type"] not in kinds])}
    if role == "assistant":
        if thoughts := "".join(block.get("thinking") or "" for block in blocks):
            said["reasoning_content"] = thoughts
        if calls := [_call(block) for block in blocks if block["type"] == "tool_use"]:
            said["tool_calls"] = calls
    if role == "assistant" or said["content"] or not blocks:
        made.append(said)


def _call(block: Mapping[str, Any]) -> Chunk:
    arguments = json.dumps(block.get("input") or {}, ensure_ascii=False)
    return {
        "id": block.get("id"),
        "type": "function",
        "function": {"name": block.get("name"), "arguments": arguments},
    }


def _content(given: str | list[Mapping[str, Any]]) -> str | list[Chunk]:
    if isinstance(given, str):
        return given
    return as_content([_part(block) for block in given])


def _part(block: Mapping[str, Any]) -> Chunk:
    source = block.get("source") or {}
    if block["type"] == "text":
        return {"type": "text", "text": block.get("text") or ""}
    if block["type"] == "image" and source.get("type") in ("base64", "url"):
        inside = f"data:{source.get('media_type') or 'image/png'};base64,{source.get('data') or ''}"
        return {"type": "image_url", "image_url": {"url": inside if source["type"] == "base64" else source.get("url")}}
    raise RequestError(f"content of type {block['type']!r:.40} is not supported: send texts and images")


_STOPS = {"length": "max_tokens", "tool_calls": "tool_use"}
# Kind of a part -> how its block begins, and the type and field of what is added to it.
_KINDS: Mapping[str, tuple[Chunk, str, str]] = {
    THOUGHTS: ({"type": "thinking", "thinking": "", "signature": ""}, "thinking_delta", "thinking"),
    TEXT: ({"type": "text", "text": ""}, "text_delta", "text"),
    CALL: ({"type": "tool_use", "input": {}}, "input_json_delta", "partial_json"),
}


class Reply:
    """The events of a streamed reply, or the whole one."""

    last = b""

    def __init__(self, alias: str, _asked: Body) -> None:
        frame = {"id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant", "model": alias}
        self._frame, self._parts, self._begun = frame, Parts(), False

    def feed(self, made: Chunk) -> Iterator[Chunk]:
        """The events that a chunk makes."""
        if not self._begun:
            self._begun = True
            empty: Chunk = {"content": [], "stop_reason": None, "stop_sequence": None, "usage": self._usage()}
            yield {"type": "message_start", "message": {**self._frame, **empty}}
        for step in self._parts.feed(made):
            yield _event(*step)

    def end(self) -> Iterator[Chunk]:
        """The events at the end of a stream that is whole. How long the prompt was is known only then."""
        for step in self._parts.end():
            yield _event(*step)
        yield {"type": "message_delta", "delta": self._stop(), "usage": self._usage()}
        yield {"type": "message_stop"}

    def broken(self, fault: RequestError) -> Chunk:
        """The last event of a stream that broke off."""
        return error(RequestError(str(fault), max(fault.status, 500)))

    def whole(self) -> Chunk:
        """The reply that was not streamed."""
        parts = self._parts.all
        if self._parts.finish == "length" and parts and parts[-1].kind == CALL:
            parts = parts[:-1]  # cut short, it is no call
        content = [_block(part) for part in parts]
        return {**self._frame, "content": content, **self._stop(), "usage": self._usage()}

    def _stop(self) -> Chunk:
        return {"stop_reason": _STOPS.get(self._parts.finish or "", "end_turn"), "stop_sequence": None}

    def _usage(self) -> Chunk:
        read = (self._parts.usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        prompt = self._parts.tokens("prompt_tokens")
        return {
            "input_tokens": prompt - read,
            "cache_read_input_tokens": read,
            "output_tokens": self._parts.tokens("completion_tokens"),
        }


def _block(part: Part, begins: bool = False) -> Chunk:
    begun, _, field = _KINDS[part.kind]
    if part.kind != CALL:
        return {**begun, field: "" if begins else part.text}
    return {**begun, "id": part.id, "name": part.name, "input": {} if begins else _arguments(part)}


def _arguments(part: Part) -> Any:
    """What a call was given. Raises RequestError where the model did not write JSON."""
    try:
        return json.loads(part.text or "{}")
    except ValueError:
        raise RequestError(f"the model called {part.name!r:.80} with arguments that are not JSON", 502) from None


def _event(step: str, part: Part, piece: str) -> Chunk:
    """What is told of a step: a part begins, grows or ends."""
    if step == BEGIN:
        return {"type": "content_block_start", "index": part.number, "content_block": _block(part, True)}
    _, kind, field = _KINDS[part.kind]
    if step == GROW:
        return {"type": "content_block_delta", "index": part.number, "delta": {"type": kind, field: piece}}
    assert step == END
    return {"type": "content_block_stop", "index": part.number}
