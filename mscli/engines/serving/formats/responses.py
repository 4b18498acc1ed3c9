"""OpenAI's /v1/responses, in terms of chat completions: the request, and the reply as events and whole.

Nothing is kept between two requests, so each brings its whole conversation. Of the tools only functions can be called;
the others, which a server has to run (web search, files ...) or which come in groups, are left out, as llama.cpp and
Ollama do: agents send them always and can do without them.
"""

from __future__ import annotations

import time
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
)  # fmt: skip
from mscli.engines.serving.formats.chunks import BEGIN, CALL, END, GROW, TEXT, THOUGHTS, Chunk, Part, Parts

_PART = holds({"type": text, "text": text, "refusal": text, "image_url": text}, ("type",))
_ITEM = holds(
    {
        "type": text,
        "role": lambda value: value in ("user", "assistant", "system", "developer"),
        "content": lambda value: text(value) or list_of(_PART)(value),
        "summary": list_of(_PART),
        "output": lambda value: text(value) or list_of(_PART)(value),
        **dict.fromkeys(("call_id", "name", "arguments"), text),
    }
)
_FORMAT = holds({"type": text, "name": text, "schema": is_object}, ("type",))
_FIELDS: Fields = {
    "input": (lambda value: text(value) or list_of(_ITEM)(value), "a text, or a list of items with their content"),
    "instructions": (text, "a text"),
    "tools": (list_of(holds({"type": text}, ("type",))), "a list of tools, each with a type"),
    "tool_choice": (lambda value: text(value) or holds({"type": text}, ("type",))(value), "a text or an object"),
    "parallel_tool_calls": (switch, "true or false"),
    "max_output_tokens": (count, "a whole number from 1"),
    "text": (holds({"format": _FORMAT}), "an object, whose format has a type"),
    "include": (list_of(text), "a list of texts"),
}
_STATE = "nothing is kept here between requests: send the whole conversation as `input`"
_REFUSED: Mapping[str, str] = {
    "previous_response_id": _STATE,
    "conversation": _STATE,
    "prompt": "there are no stored prompts here",
    "background": "a reply is made while its request waits",
    "top_logprobs": "no probabilities",
}
_SAME = ("model", "stream", "temperature", "top_p", "user")


def request(body: Body) -> Body:
    """The same as a chat completion request. Raises RequestError."""
    fit(body, _FIELDS)
    for name, why in _REFUSED.items():
        if body.get(name):
            raise RequestError(f"`{name}` is not supported: {why}")
    if "message.output_text.logprobs" in (body.get("include") or ()):
        raise RequestError("`include` of probabilities is not supported")
    made = {name: body[name] for name in _SAME if body.get(name) is not None}
    if limit := body.get("max_output_tokens"):
        made["max_completion_tokens"] = limit
    if form := (body.get("text") or {}).get("format"):
        inner = {name: part for name, part in form.items() if name != "type"}
        made["response_format"] = {"type": form["type"], **({"json_schema": inner} if inner else {})}
    return {**made, "messages": _messages(body), **_tools(body)}


def _functions(body: Body) -> list[Mapping[str, Any]]:
    return [tool for tool in body.get("tools") or () if tool["type"] == "function"]


def _tools(body: Body) -> Chunk:
    """The functions among the tools, and which of them may or must be called."""
    choice = body.get("tool_choice") or "auto"
    if isinstance(choice, dict):
        if choice["type"] != "function":
            raise RequestError(f"`tool_choice` of type {choice['type']!r:.40} is not supported: name a function")
        choice = {"type": "function", "function": {"name": choice.get("name")}}
    fields = {name: name for name in ("name", "description", "parameters", "strict")}
    return called(_functions(body), fields, choice, body.get("parallel_tool_calls"), "no function")


def _messages(body: Body) -> list[Chunk]:
    given = body.get("input")
    if given is None:
        raise RequestError("`input` is missing")
    made: list[Chunk] = [{"role": "system", "content": body["instructions"]}] if body.get("instructions") else []
    if isinstance(given, str):
        return [*made, {"role": "user", "content": given}]
    for item in given:
        _add(item, made)
    return made


def _add(item: Mapping[str, Any], made: list[Chunk]) -> None:
    """Add what an item of the conversation says; what the assistant says in one turn is one message."""
    kind = item.get("type") or "message"
    if kind == "message" and item.get("role") == "assistant":
        _turn(made, "content")["content"] = _content(item.get("content"))
    elif kind == "message" and item.get("role"):
        made.append({"role": item["role"], "content": _content(item.get("content"))})
    elif kind == "reasoning":
        thoughts = "".join(part.get("text") or "" for part in item.get("content") or item.get("summary") or ())
        _turn(made, "reasoning_content", "content", "tool_calls")["reasoning_content"] = thoughts
    elif kind == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments") or "{}"}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        _turn(made).setdefault("tool_calls", []).append(call)
    elif kind == "function_call_output":
        made.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": _content(item.get("output"))})
    else:
        raise RequestError(f"`input` holds an item of type {kind!r:.40} that is not supported, or has no role")


def _turn(made: list[Chunk], *free: str) -> Chunk:
    """The message of the assistant that goes on: the last one, if it holds none of the fields `free` yet."""
    if not made or made[-1]["role"] != "assistant" or any(made[-1].get(name) for name in free):
        made.append({"role": "assistant", "content": ""})
    return made[-1]


def _content(given: object) -> str | list[Chunk]:
    if not isinstance(given, list):
        return str(given or "")
    return as_content([_part(part) for part in given])


def _part(part: Mapping[str, Any]) -> Chunk:
    if part["type"] in ("input_text", "output_text", "text"):
        return {"type": "text", "text": part.get("text") or ""}
    if part["type"] == "refusal":
        return {"type": "text", "text": part.get("refusal") or ""}
    if part["type"] == "input_image" and part.get("image_url"):
        return {"type": "image_url", "image_url": {"url": part["image_url"]}}
    raise RequestError(f"content of type {part['type']!r:.40} is not supported: send texts, and images as data URLs")


# Kind of a part -> what its item's id begins with, the type of its content, and the field of its text in events.
_KINDS = {
    THOUGHTS: ("rs", "reasoning_text", "text"),
    TEXT: ("msg", "output_text", "text"),
    CALL: ("fc", "function_call_arguments", "arguments"),
}


class Reply:
    """The events of a streamed reply, or the whole one. `asked`: the request, of which the reply repeats some."""

    last = b""

    def __init__(self, alias: str, asked: Body) -> None:
        repeated = {
            "instructions": None, "max_output_tokens": None, "metadata": {}, "parallel_tool_calls": True,
            "temperature": None, "text": {"format": {"type": "text"}}, "tool_choice": "auto", "top_p": None,
        }  # fmt: skip
        self._parts, self._number, self._begun = Parts(), 0, False
        self._id = uuid.uuid4().hex
        self._frame = {
            "id": f"resp_{self._id}", "object": "response", "created_at": int(time.time()), "model": alias,
            "previous_response_id": None, "store": False, "truncation": "disabled", "tools": _functions(asked),
            **{name: value if asked.get(name) is None else asked[name] for name, value in repeated.items()},
        }  # fmt: skip

    def feed(self, made: Chunk) -> Iterator[Chunk]:
        """The events that a chunk makes."""
        if not self._begun:
            self._begun = True
            yield self._event("response.created", response=self._told("in_progress"))
            yield self._event("response.in_progress", response=self._told("in_progress"))
        for step in self._parts.feed(made):
            yield from self._events(*step)

    def end(self) -> Iterator[Chunk]:
        """The events at the end of a stream that is whole."""
        for step in self._parts.end():
            yield from self._events(*step)
        whole = self.whole()
        yield self._event(f"response.{whole['status']}", response=whole)

    def broken(self, fault: RequestError) -> Chunk:
        """The last event of a stream that broke off."""
        why = {"code": fault.code or "server_error", "message": str(fault)}
        return self._event("response.failed", response={**self._told("failed"), "error": why})

    def whole(self) -> Chunk:
        """The reply that was not streamed."""
        if self._parts.finish != "length":
            return self._told("completed")
        return {**self._told("incomplete"), "incomplete_details": {"reason": "max_output_tokens"}}

    def _told(self, status: str) -> Chunk:
        done = status in ("completed", "incomplete")
        ended = "completed" if status == "completed" else "incomplete"
        output = [self._item(part, ended, part.text) for part in self._parts.all]
        nothing = {"error": None, "incomplete_details": None}
        return {**self._frame, **nothing, "status": status, "output": output, "usage": self._usage() if done else None}

    def _usage(self) -> Chunk:
        prompt, completion = self._parts.tokens("prompt_tokens"), self._parts.tokens("completion_tokens")
        cached = (self._parts.usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        thought = (self._parts.usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
        return {
            "input_tokens": prompt, "input_tokens_details": {"cached_tokens": cached},
            "output_tokens": completion, "output_tokens_details": {"reasoning_tokens": thought},
            "total_tokens": prompt + completion,
        }  # fmt: skip

    def _event(self, kind: str, **more: Any) -> Chunk:
        self._number += 1
        return {"type": kind, "sequence_number": self._number - 1, **more}

    def _identity(self, part: Part) -> str:
        return f"{_KINDS[part.kind][0]}_{self._id}_{part.number}"

    def _item(self, part: Part, status: str, words: str | None = None) -> Chunk:
        """An item of the output. `words`: its text so far; None: it has just begun."""
        made: Chunk = {"id": self._identity(part), "status": status}
        if part.kind == CALL:
            return {
                **made, "type": "function_call", "call_id": part.id, "name": part.name, "arguments": words or "",
            }  # fmt: skip
        content = [] if words is None else [_piece(part, words)]
        if part.kind == THOUGHTS:
            return {**made, "type": "reasoning", "summary": [], "content": content}
        return {**made, "type": "message", "role": "assistant", "content": content}

    def _events(self, step: str, part: Part, piece: str) -> Iterator[Chunk]:
        """What is told of a step: a part begins, grows or ends."""
        _, kind, field = _KINDS[part.kind]
        place: Chunk = {"output_index": part.number}
        at = {**place, "item_id": self._identity(part), **({} if part.kind == CALL else {"content_index": 0})}
        if step == BEGIN:
            yield self._event("response.output_item.added", **place, item=self._item(part, "in_progress"))
            if part.kind != CALL:
                yield self._event("response.content_part.added", **at, part=_piece(part, ""))
        elif step == GROW:
            more: Chunk = {"logprobs": []} if part.kind == TEXT else {}
            yield self._event(f"response.{kind}.delta", **at, delta=piece, **more)
        elif step == END:
            more = {"logprobs": []} if part.kind == TEXT else {"name": part.name} if part.kind == CALL else {}
            yield self._event(f"response.{kind}.done", **at, **{field: part.text}, **more)
            if part.kind != CALL:
                yield self._event("response.content_part.done", **at, part=_piece(part, part.text))
            yield self._event("response.output_item.done", **place, item=self._item(part, "completed", part.text))


def _piece(part: Part, words: str) -> Chunk:
    """The content of a text or of thoughts."""
    made: Chunk = {"type": _KINDS[part.kind][1], "text": words}
    return {**made, "annotations": [], "logprobs": []} if part.kind == TEXT else made
