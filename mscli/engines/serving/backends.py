"""The engines behind the gateway, each as a stream of chunks in the shape of OpenAI's API.

`Library` is a Python object in a process of its own (see worker.py), `OpenAi` a server that speaks the API already,
`Vllm` one that is strict about a conversation, and `Ollama` one whose own API can refuse what its OpenAI endpoint cuts
in silence.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing
from itertools import count
from socket import socket
from typing import Any, Protocol

from mscli.engines.serving.chat_request import Body, RequestError, pictures, role
from mscli.engines.serving.engine_http import GONE, ask
from mscli.engines.serving.strict_messages import accepted
from mscli.untrusted import error_words

Chunk = dict[str, Any]
CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
TOO_LONG = "context_length_exceeded"
BROKE_OFF = "the reply broke off"
_HEALTH_S = 5.0
_LONGEST_LINE_BYTES = 64 << 20
# What engines say of a prompt that is longer than the context, with the numbers they tell: prompt, context.
_EXCEEDED = (
    re.compile(r"request \((?P<prompt>\d+) tokens\) exceeds the available context size \((?P<context>\d+) tokens\)"),
    re.compile(r"maximum context length is (?P<context>\d+) tokens.*?contains \d+ characters", re.DOTALL),
    re.compile(r"maximum context length is (?P<context>\d+) tokens.*?(?P<prompt>\d+)", re.DOTALL),
    re.compile(r"Prompt sequence length is greater than (?P<context>\d+)"),
)


class Backend(Protocol):
    """One engine. `formats`: the types of `response_format` that it honors; `honors`: fields that most do not."""

    formats: Collection[str]
    honors: Collection[str]

    async def healthy(self) -> bool:
        """Whether it answers now. Waits a few seconds at most."""

    async def load(self) -> bool:
        """Have its model in memory, where that takes more than to be healthy. False where that is to be tried again."""

    def stream(self, path: str, request: Body) -> AsyncGenerator[Chunk, None]:
        """The chunks of the reply to a checked request for CHAT or COMPLETION; closed early, the engine stops.

        Raises RequestError, also in the middle."""


def chunk(delta: Mapping[str, Any], finish: str | None = None, **more: Any) -> Chunk:
    """A chunk of one choice, without its frame."""
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


def usage(prompt: int | None, completion: int | None) -> Chunk:
    """The numbers of tokens; the total where both are told."""
    total = None if prompt is None or completion is None else prompt + completion
    return {"usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}}


def refusal(status: int, words: str) -> RequestError:
    """An engine's refusal as the API words it: a prompt that is too long has a code of its own."""
    for pattern in _EXCEEDED:
        if found := pattern.search(words):
            numbers = found.groupdict()
            sent = f"request ({numbers['prompt']} tokens)" if numbers.get("prompt") else "request"
            text = f"{sent} exceeds the available context size ({numbers['context']} tokens): shorten it"
            return RequestError(f"{text}, or start with a larger --ctx", code=TOO_LONG)
    return RequestError(words[:2000] or f"the engine answered HTTP {status}", status if status >= 400 else 502)


def broken(words: str) -> RequestError:
    """What an engine says in the middle of a reply."""
    fault = refusal(502, words)
    return fault if fault.code else RequestError(f"{BROKE_OFF}: {fault}", 502)


class Library:
    """A Python object that answers over a socket."""

    formats: Collection[str] = ("text",)
    honors: Collection[str] = ()

    def __init__(self, link: socket) -> None:
        self._link, self._numbers, self._ready = link, count(), False
        self._replies: dict[int, asyncio.Queue[dict[str, Any]]] = {}

    async def attend(self) -> None:
        """Hand on what the process says, until it has ended."""
        reader, self._writer = await asyncio.open_connection(sock=self._link, limit=_LONGEST_LINE_BYTES)
        while line := await reader.readline():
            message = json.loads(line)
            if "ready" in message:
                self._ready, self.formats = True, message["ready"]
            elif reply := self._replies.get(message["id"]):
                reply.put_nowait(message)
        self._ready = False
        for reply in self._replies.values():
            reply.put_nowait({"fault": f"{BROKE_OFF}: the engine ended", "status": 502})

    async def healthy(self) -> bool:
        """See `Backend`."""
        return self._ready

    async def load(self) -> bool:
        """See `Backend`."""
        return True

    async def stream(self, path: str, request: Body) -> AsyncGenerator[Chunk, None]:
        """See `Backend`."""
        if path != CHAT:
            raise RequestError(f"there is nothing at {path}", 404)
        number, reply, ended = next(self._numbers), asyncio.Queue[dict[str, Any]](), False
        self._replies[number] = reply
        try:
            await self._send({"id": number, "request": request})
            while not (ended := "step" not in (said := await reply.get())):
                yield _step(said["step"])
            if "fault" in said:
                raise RequestError(said["fault"], said["status"], said.get("code"))
        finally:
            del self._replies[number]
            if not ended:
                self._writer.write(json.dumps({"id": number, "left": True}).encode() + b"\n")

    async def _send(self, message: Mapping[str, Any]) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")
        await self._writer.drain()


def _step(step: Mapping[str, Any]) -> Chunk:
    """A worker's `Delta` as a chunk."""
    delta = {"content": step["content"], "reasoning_content": step["reasoning"]}
    delta = {name: text for name, text in delta.items() if text}
    if step["calls"]:
        delta["tool_calls"] = [{"index": number, **call} for number, call in enumerate(step["calls"])]
    numbers = usage(step["prompt_tokens"], step["completion_tokens"]) if step["finish"] else {}
    return chunk(delta, step["finish"], **numbers)


class OpenAi:
    """A server that speaks the API: mistral.rs, llama.cpp. It is always asked for a stream, which it stops when the
    gateway leaves."""

    formats: Collection[str] = ("text", "json_object", "json_schema")
    honors: Collection[str] = ("n", "logprobs", "top_logprobs", "logit_bias", "tool_choice")

    def __init__(self, port: int, health_path: str, alias: str, context: int) -> None:
        self.port, self._health_path, self._alias, self._context = port, health_path, alias, context

    async def healthy(self) -> bool:
        """See `Backend`."""
        try:
            async with ask(self.port, self._health_path, most_s=_HEALTH_S) as answer:
                return answer.status == 200
        except GONE:
            return False

    async def load(self) -> bool:
        """See `Backend`."""
        return True

    async def stream(self, path: str, request: Body) -> AsyncGenerator[Chunk, None]:
        """See `Backend`."""
        tools = {"tools": None, "tool_choice": None} if request.get("tool_choice") == "none" else {}
        body = {**self._put(path, request), **tools, "stream": True, "stream_options": {"include_usage": True}}
        finished = False
        async with aclosing(
            self.lines(path, {name: value for name, value in body.items() if value is not None})
        ) as got:
            async for line in got:
                if line.startswith(b"data:") and (data := line[5:].strip()) != b"[DONE]":
                    made = _event(data)
                    finished |= any(choice.get("finish_reason") for choice in made.get("choices") or ())
                    yield made
        if not finished:
            raise RequestError(f"{BROKE_OFF}: the engine ended it before its end", 502)

    def _put(self, _path: str, request: Body) -> Body:
        """The request as this engine takes it."""
        return request

    async def lines(self, path: str, body: Body) -> AsyncGenerator[bytes, None]:
        """The lines of the answer, not the empty ones. Raises RequestError where it is a refusal, or breaks off."""
        try:
            async with ask(self.port, path, body) as answer:
                if answer.status != 200:
                    raise refusal(answer.status, error_words((await answer.whole()).decode(errors="replace")))
                async for line in answer.lines():
                    yield line
        except GONE as fault:
            raise RequestError(f"{BROKE_OFF} ({type(fault).__name__})", 502) from fault


def _event(data: bytes) -> Chunk:
    """An event's chunk. Raises RequestError for one that tells an error, be it as text alone (mistral.rs)."""
    try:
        made = json.loads(data)
    except ValueError:
        raise broken(data.decode(errors="replace")) from None
    if not isinstance(made, dict) or made.get("error"):
        raise broken(error_words(data.decode(errors="replace")))
    return made


class Vllm(OpenAi):
    """vLLM, which refuses conversations that other engines take, and a limit of the reply above its context."""

    def _put(self, path: str, request: Body) -> Body:
        limits = {name: request[name] for name in ("max_tokens", "max_completion_tokens") if request.get(name)}
        within = {name: min(limit, self._context) for name, limit in limits.items()}
        talk = {"messages": accepted(request["messages"])} if path == CHAT else {}
        return {**request, **within, **talk}


class Ollama(OpenAi):
    """Answered from its own API with `truncate: false`: its OpenAI endpoint cuts what is too long without a word."""

    honors = ("logprobs", "top_logprobs")

    async def load(self) -> bool:
        """See `Backend`. The model is made by `mscli up`, and is there again after a restart of the server."""
        try:
            async with ask(self.port, "/api/generate", {"model": self._alias, "stream": False}) as answer:
                await answer.whole()
                return answer.status == 200
        except GONE:
            return False

    async def stream(self, path: str, request: Body) -> AsyncGenerator[Chunk, None]:
        """See `Backend`."""
        own, make = ("/api/chat", _chat) if path == CHAT else ("/api/generate", _generate)
        finished, calls = False, 0
        async with aclosing(self.lines(own, {**make(request), **self._common(request)})) as lines:
            async for line in lines:
                said = _event(line)
                yield _native(said, calls)
                calls += len((said.get("message") or {}).get("tool_calls") or ())
                finished |= bool(said.get("done"))
        if not finished:
            raise RequestError(f"{BROKE_OFF}: the engine ended it before its end", 502)

    def _common(self, request: Body) -> dict[str, Any]:
        names = ("temperature", "top_p", "top_k", "min_p", "seed", "presence_penalty", "frequency_penalty")
        options = {name: request[name] for name in names if request.get(name) is not None}
        if stop := request.get("stop"):
            options["stop"] = [stop] if isinstance(stop, str) else stop
        if limit := request.get("max_completion_tokens") or request.get("max_tokens"):
            options["num_predict"] = min(limit, self._context)
        form = request.get("response_format") or {"type": "text"}
        schema = (form.get("json_schema") or {}).get("schema")
        shape = {"json_object": "json", "json_schema": schema}.get(form["type"])
        more = {name: request[name] for name in ("logprobs", "top_logprobs") if request.get(name)}
        named = {"model": self._alias, "stream": True, "truncate": False, "options": options}
        return {**named, **({"format": shape} if shape else {}), **more}


def _chat(request: Body) -> dict[str, Any]:
    """The conversation as /api/chat takes it."""
    names: dict[str, str] = {}  # of the tools that were called, by the id of the call
    messages = [_message(message, names) for message in request["messages"]]
    tools = request.get("tools") if request.get("tool_choice") != "none" else None
    return {"messages": messages, **({"tools": tools} if tools else {})}


def _message(message: Mapping[str, Any], names: dict[str, str]) -> dict[str, Any]:
    content = message.get("content") or ""
    text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
    made: dict[str, Any] = {"role": role(message), "content": text}
    if images := [url.partition(",")[2] for url in pictures({"messages": [message]})]:
        made["images"] = images
    if calls := message.get("tool_calls"):
        names |= {call.get("id", ""): call["function"]["name"] for call in calls}
        made["tool_calls"] = [_call(call) for call in calls]
    if message["role"] == "tool":
        known = message.get("name") or names.get(message.get("tool_call_id") or "", "")
        made |= {"tool_name": known, "tool_call_id": message.get("tool_call_id") or ""}
    return made


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    """A call with its arguments as an object. Raises RequestError where the client sends no object."""
    arguments = call["function"].get("arguments") or {}
    try:
        said = json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise RequestError("`arguments` of a tool call must be a JSON object")
    return {"id": call.get("id", ""), "function": {"name": call["function"]["name"], "arguments": said}}


def _generate(request: Body) -> dict[str, Any]:
    prompt = request.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise RequestError("`prompt` must be a text")
    return {"prompt": prompt}


def _native(said: Mapping[str, Any], calls: int) -> Chunk:
    """A line of Ollama's stream as a chunk. `calls`: how many calls of tools came before it."""
    message = said.get("message") or {}
    delta = {"content": message.get("content"), "reasoning_content": message.get("thinking")}
    delta = {name: text for name, text in delta.items() if text}
    if made := message.get("tool_calls"):
        delta["tool_calls"] = [_opened(call, number) for number, call in enumerate(made, calls)]
    finish = (said.get("done_reason") or "stop") if said.get("done") else None
    if finish == "stop" and (calls or made):
        finish = "tool_calls"
    numbers = usage(said.get("prompt_eval_count"), said.get("eval_count")) if finish else {}
    if "response" in said:
        text = {"index": 0, "text": said["response"], "finish_reason": finish, "logprobs": None}
        return {"choices": [text], **numbers}
    told = chunk(delta, finish, **numbers)
    if logprobs := said.get("logprobs"):
        told["choices"][0]["logprobs"] = {"content": logprobs}
    return told


def _opened(call: Mapping[str, Any], number: int) -> dict[str, Any]:
    function = call.get("function") or {}
    arguments = json.dumps(function.get("arguments") or {}, ensure_ascii=False)
    named = {"name": function.get("name"), "arguments": arguments}
    return {"index": number, "id": call.get("id") or f"call_{number}", "type": "function", "function": named}
