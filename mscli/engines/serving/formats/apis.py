"""What is spoken on both sides of the gateway.

The APIs that clients are answered in: each as a chat completion request and back; and what a client of OpenAI's chat
completions (and plain completions) is answered, out of an engine's chunks.

The dialects of engines that are servers: how each is asked for a reply, and how its answer is read, line by line. vLLM
reads a conversation by mistral_common: what that refuses is put otherwise, and what it takes passes as it is, so that
the prompt is the same as without the gateway.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Protocol

from mscli.engines.serving.chat_request import Body, RequestError, role
from mscli.engines.serving.formats import messages, ollama, responses
from mscli.engines.serving.formats.chunks import CHAT, COMPLETION, Chunk, event
from mscli.frozen import frozen

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


_STRICT = re.compile(r"raise_exception|roles must alternate")


def again(request: Body, refused: RequestError) -> Body | None:
    """The request as the model's own template takes it, where that refused it; None for another refusal."""
    if not _STRICT.search(str(refused)) or "messages" not in request:
        return None
    put = strict(request["messages"])
    return None if put == request["messages"] else {**request, "messages": put}


def strict(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages as the strictest templates insist on them: those of `accepted`, but one system message, at the
    beginning, then the user and the assistant by turns. A system message elsewhere is the user's; neighbors of one role
    are joined by an empty line."""
    made: list[dict[str, Any]] = []
    for message in accepted(messages):
        before = made[-1] if made else message
        if message["role"] == "system" and before["role"] != "system":
            message = {**message, "role": "user"}
        joins = message["role"] == before["role"] != "tool" and not (before.get("tool_calls") or before is message)
        if joins and made:
            made[-1] = {**before, **message, "content": _joined(before.get("content"), message.get("content"))}
        else:
            made.append(message)
    return made


def _joined(*contents: Any) -> Any:
    """Texts as one; where there are images, the parts of both."""
    told = [content for content in contents if content]
    if all(isinstance(content, str) for content in told):
        return "\n\n".join(told)
    return [part for content in told for part in (_text(f"{content}\n\n") if isinstance(content, str) else content)]


def _text(content: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": content}]


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
