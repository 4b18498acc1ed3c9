"""Ollama's own API, which can refuse a prompt that its OpenAI endpoint cuts in silence (`truncate: false`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mscli.engines.serving.chat_request import Body, RequestError, pictures, role
from mscli.engines.serving.formats.chunks import CHAT, Chunk, chunk, event, texts, usage

_OPTIONS = ("temperature", "top_p", "top_k", "min_p", "seed", "presence_penalty", "frequency_penalty")


def request(path: str, body: Body, alias: str, context: int) -> tuple[str, Body]:
    """The path and the body by which Ollama is asked for a chat, or for a plain completion. Raises RequestError."""
    asked = _chat(body) if path == CHAT else _generate(body)
    named = {"model": alias, "stream": True, "truncate": False, "options": _options(body, context)}
    form = body.get("response_format") or {"type": "text"}
    schema = (form.get("json_schema") or {}).get("schema")
    shape = {"json_object": "json", "json_schema": schema}.get(form["type"])
    more = {name: body[name] for name in ("logprobs", "top_logprobs") if body.get(name)}
    return "/api/chat" if path == CHAT else "/api/generate", {
        **asked, **named, **({"format": shape} if shape else {}), **more,
    }  # fmt: skip


def own(body: Body, alias: str) -> Body:
    """A request of a client of Ollama's, without what would change how the model sits in memory."""
    kept = {name: value for name, value in body.items() if name != "keep_alive"}
    if isinstance(kept.get("options"), dict):
        kept["options"] = {name: value for name, value in kept["options"].items() if name != "num_ctx"}
    return {**kept, "model": alias, "truncate": False}


def _options(body: Body, context: int) -> Chunk:
    options = {name: body[name] for name in _OPTIONS if body.get(name) is not None}
    if stop := body.get("stop"):
        options["stop"] = [stop] if isinstance(stop, str) else stop
    if limit := body.get("max_completion_tokens") or body.get("max_tokens"):
        options["num_predict"] = min(limit, context)
    return options


def _generate(body: Body) -> Chunk:
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise RequestError("`prompt` must be a text")
    return {"prompt": prompt}


def _chat(body: Body) -> Chunk:
    """The conversation as /api/chat takes it."""
    names: dict[str, str] = {}  # of the tools that were called, by the id of the call
    messages = [_message(message, names) for message in body["messages"]]
    tools = body.get("tools") if body.get("tool_choice") != "none" else None
    return {"messages": messages, **({"tools": tools} if tools else {})}


def _message(message: Mapping[str, Any], names: dict[str, str]) -> Chunk:
    content = message.get("content") or ""
    text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
    made: Chunk = {"role": role(message), "content": text}
    if images := [url.partition(",")[2] for url in pictures({"messages": [message]})]:
        made["images"] = images
    if calls := message.get("tool_calls"):
        names |= {call.get("id", ""): call["function"]["name"] for call in calls}
        made["tool_calls"] = [_call(call) for call in calls]
    if message["role"] == "tool":
        known = message.get("name") or names.get(message.get("tool_call_id") or "", "")
        made |= {"tool_name": known, "tool_call_id": message.get("tool_call_id") or ""}
    return made


def _call(call: Mapping[str, Any]) -> Chunk:
    """A call with its arguments as an object. Raises RequestError where the client sends no object."""
    arguments = call["function"].get("arguments") or {}
    try:
        said = json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise RequestError("`arguments` of a tool call must be a JSON object")
    return {"id": call.get("id", ""), "function": {"name": call["function"]["name"], "arguments": said}}


class Reader:
    """Makes chunks of the lines of one reply."""

    def __init__(self) -> None:
        self._calls = 0

    def __call__(self, line: bytes) -> Chunk:
        """The chunk of a line. Raises RequestError for one that tells an error."""
        said = event(line)
        message = said.get("message") or {}
        finish = (said.get("done_reason") or "stop") if said.get("done") else None
        delta = texts(message.get("content"), message.get("thinking"))
        if calls := message.get("tool_calls"):
            delta["tool_calls"] = [_opened(call, number) for number, call in enumerate(calls, self._calls)]
            self._calls += len(calls)
        if finish == "stop" and self._calls:
            finish = "tool_calls"
        numbers = usage(said.get("prompt_eval_count"), said.get("eval_count")) if finish else {}
        if "response" in said:
            text = {"index": 0, "text": said["response"], "finish_reason": finish, "logprobs": None}
            return {"choices": [text], **numbers}
        told = chunk(delta, finish, **numbers)
        if logprobs := said.get("logprobs"):
            told["choices"][0]["logprobs"] = {"content": logprobs}
        return told


def _opened(call: Mapping[str, Any], number: int) -> Chunk:
    function = call.get("function") or {}
    arguments = json.dumps(function.get("arguments") or {}, ensure_ascii=False)
    named = {"name": function.get("name"), "arguments": arguments}
    return {"index": number, "id": call.get("id") or f"call_{number}", "type": "function", "function": named}
