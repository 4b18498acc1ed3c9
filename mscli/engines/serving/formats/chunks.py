"""The chunks of a reply in the shape of OpenAI's API, into which every engine's answer is put, and its refusals; and
what the chunks add up to, as OpenAI's responses and Anthropic's messages tell it: thoughts, text and calls, one after
the other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mscli.engines.serving.chat_request import RequestError
from mscli.untrusted import error_words

Chunk = dict[str, Any]
CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
TOO_LONG = "context_length_exceeded"
BROKE_OFF = "the reply broke off"
# What engines say of a prompt that is longer than the context, with the numbers they tell: prompt, context.
_EXCEEDED = (
    re.compile(r"request \((?P<prompt>\d+) tokens\) exceeds the available context size \((?P<context>\d+) tokens\)"),
    re.compile(r"maximum context length is (?P<context>\d+) tokens.*?contains \d+ characters", re.DOTALL),
    re.compile(r"maximum context length is (?P<context>\d+) tokens.*?(?P<prompt>\d+)", re.DOTALL),
    re.compile(r"Prompt sequence length is greater than (?P<context>\d+)"),
)


def chunk(delta: Mapping[str, Any], finish: str | None = None, **more: Any) -> Chunk:
    """A chunk of one choice, without its frame."""
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


def usage(prompt: int | None, completion: int | None) -> Chunk:
    """The numbers of tokens; the total where both are told."""
    total = None if prompt is None or completion is None else prompt + completion
    return {"usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}}


def texts(content: str | None, thoughts: str | None) -> Chunk:
    """A delta of what there is of both."""
    both = {"content": content, "reasoning_content": thoughts}
    return {name: text for name, text in both.items() if text}


def event(data: bytes) -> Chunk:
    """An event's chunk. Raises RequestError for one that tells an error, be it as text alone (mistral.rs)."""
    try:
        made = json.loads(data)
    except ValueError:
        made = None
    if not isinstance(made, dict) or made.get("error"):
        raise broken(data.decode(errors="replace"))
    return made


def step(said: Mapping[str, Any]) -> Chunk:
    """A worker's `Delta` as a chunk."""
    delta = texts(said["content"], said["reasoning"])
    if said["calls"]:
        delta["tool_calls"] = [{"index": number, **call} for number, call in enumerate(said["calls"])]
    numbers = usage(said["prompt_tokens"], said["completion_tokens"]) if said["finish"] else {}
    return chunk(delta, said["finish"], **numbers)


def refusal(status: int, said: str) -> RequestError:
    """An engine's refusal as the API words it: a prompt that is too long has a code of its own."""
    words = error_words(said)
    for pattern in _EXCEEDED:
        if found := pattern.search(words):
            numbers = found.groupdict()
            sent = f"request ({numbers['prompt']} tokens)" if numbers.get("prompt") else "request"
            text = f"{sent} exceeds the available context size ({numbers['context']} tokens): shorten it"
            return RequestError(f"{text}, or start with a larger --ctx", code=TOO_LONG)
    return RequestError(words[:2000] or f"the engine answered HTTP {status}", status if status >= 400 else 502)


def broken(said: str) -> RequestError:
    """What an engine says in the middle of a reply."""
    fault = refusal(502, said)
    return fault if fault.code else RequestError(f"{BROKE_OFF}: {fault}", 502)


THOUGHTS, TEXT, CALL = "thoughts", "text", "call"
BEGIN, GROW, END = "begin", "grow", "end"


@dataclass
class Part:
    """`key`: the kind, and of a call its number too. `id` and `name` are a call's, its text the arguments."""

    kind: str
    number: int
    key: tuple[str, int]
    id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All of it so far."""
        return "".join(self.pieces)


Step = tuple[str, Part, str]  # what happens to a part, and what is added to it


class Parts:
    """What the chunks of one choice add up to. `usage` as the engine tells it."""

    def __init__(self) -> None:
        self.all: list[Part] = []
        self.finish: str | None = None
        self.usage: Mapping[str, Any] = {}
        self._open = False

    def feed(self, made: Chunk) -> Iterator[Step]:
        """The steps that a chunk makes."""
        self.usage = made.get("usage") or self.usage
        for choice in made.get("choices") or ():
            delta = choice.get("delta") or {}
            yield from self._grow(THOUGHTS, delta.get("reasoning_content") or delta.get("reasoning") or "")
            yield from self._grow(TEXT, delta.get("content") or "")
            for call in delta.get("tool_calls") or ():
                function = call.get("function") or {}
                named = (call.get("id") or "", function.get("name") or "")
                yield from self._grow(CALL, function.get("arguments") or "", call.get("index", 0), *named)
            self.finish = choice.get("finish_reason") or self.finish

    def end(self) -> Iterator[Step]:
        """The end of the part that is still open."""
        if self._open:
            self._open = False
            yield END, self.all[-1], ""

    def tokens(self, name: str) -> int:
        """A number of tokens, 0 where the engine tells none: both APIs need one."""
        return self.usage.get(name) or 0

    def _grow(self, kind: str, piece: str, number: int = 0, id: str = "", name: str = "") -> Iterator[Step]:
        if not piece and kind != CALL:
            return
        if not self._open or self.all[-1].key != (kind, number):
            yield from self.end()
            part = Part(kind, len(self.all), (kind, number), id or f"call_{len(self.all)}", name)
            self.all.append(part)
            self._open = True
            yield BEGIN, part, ""
        if piece:
            self.all[-1].pieces.append(piece)
            yield GROW, self.all[-1], piece
