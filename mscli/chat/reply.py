"""One streamed reply of an OpenAI-compatible server, in one shape whatever the engine."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mscli.catalog.model import Sampling
from mscli.chat.message import Message, Truncation, cut_prompt
from mscli.chat.stream import Piece, ThinkSplitter
from mscli.errors import Code, MscliError
from mscli.instances.records import Record, api_key, must_run

if TYPE_CHECKING:
    import httpx

_MEASURABLE_S = 0.05


@dataclass(frozen=True)
class Target:
    """Where to ask. `splits_think`: the answer's text may hold <think> tags. `name`: the instance, for hints.

    `system_prompt`: the one its model's makers recommend, None where they recommend none. `context`: in tokens, prompt
    and reply together; None: not known.
    """

    name: str
    base_url: str
    api_key: str | None
    model: str
    sampling: Sampling
    splits_think: bool
    system_prompt: str | None = None
    context: int | None = None


def target_of(record: Record) -> Target:
    """The instance as a client sees it. Raises NOT_RUNNING for one that has died or was stopped, FILE when its key
    cannot be read."""
    must_run(record)
    splits = record.reasoning == "think-text"
    context = record.plan.context
    sampling = _within(record.sampling, context)
    return Target(
        record.name, record.base_url, api_key(record), record.alias, sampling, splits, record.system_prompt, context
    )


def _within(sampling: Sampling, context: int) -> Sampling:
    """vLLM refuses a request whose prompt and longest reply exceed the context together, and Magistral's makers
    recommend 40,960 tokens for the one and for the other. Where such a limit leaves little to the prompt it is not
    sent: the context ends the reply all the same."""
    too_much = sampling.max_tokens is not None and 2 * sampling.max_tokens > context
    return replace(sampling, max_tokens=None) if too_much else sampling


@dataclass(frozen=True)
class ToolCall:
    """A function the model wants called; `arguments` is JSON text as the model wrote it."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Reply:
    """A whole reply. `ttft_s`: seconds until its first piece; token counts are the server's (None: it told none).

    `truncated`: what the server lost of the prompt, None where it read the whole, as far as can be told.
    """

    text: str
    reasoning: str
    tool_calls: tuple[ToolCall, ...]
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    seconds: float
    ttft_s: float | None
    truncated: Truncation | None = None

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens per second after the first one; None where the reply came too fast to measure."""
        if not self.completion_tokens or self.ttft_s is None or self.seconds - self.ttft_s < _MEASURABLE_S:
            return None
        return (self.completion_tokens - 1) / (self.seconds - self.ttft_s)


def ask(
    target: Target,
    messages: Sequence[Message],
    listener: Callable[[Piece], None],
    timeout_s: float = 600.0,
    tools: Sequence[Mapping[str, object]] = (),
) -> Reply:
    """Send the conversation and return the reply; `listener` hears each piece as it comes.

    Waits at most `timeout_s` between two pieces. Raises REQUEST_FAILED with the server's own words, or when the
    connection breaks, or when the stream ends before the reply does (details["text"]: what had come of it);
    NOT_RUNNING when nobody answers. KeyboardInterrupt passes: the request ends with it.
    """
    import httpx

    preview = _Preview(target.splits_think, listener)
    headers = {"Authorization": f"Bearer {target.api_key}"} if target.api_key else {}
    client = httpx.Client(timeout=httpx.Timeout(timeout_s, connect=5.0), headers=headers, trust_env=False)
    try:
        with (
            client,
            client.stream("POST", f"{target.base_url}/chat/completions", json=_body(target, messages, tools)) as got,
        ):
            if got.status_code != 200:
                raise _refused(target, got)
            for event in _events(got):
                preview.add(event)
    except httpx.ConnectError as fault:
        raise MscliError(
            Code.NOT_RUNNING, f"{target.name} does not answer at {target.base_url}", "See: mscli status"
        ) from fault
    except httpx.TransportError as fault:
        raise MscliError(
            Code.REQUEST_FAILED,
            f"the connection to {target.name} broke off: {fault or type(fault).__name__}",
            f"See whether it still lives: mscli status. Its last words: mscli logs {target.name} -n 30",
        ) from fault
    reply = preview.reply()
    if reply.finish_reason is None:
        raise _broken_off(target, reply)
    return replace(reply, truncated=cut_prompt(messages, reply.prompt_tokens))


def _body(target: Target, messages: Sequence[Message], tools: Sequence[Mapping[str, object]]) -> dict[str, Any]:
    sampling = target.sampling
    wanted = {"temperature": sampling.temperature, "top_p": sampling.top_p, "max_tokens": sampling.max_tokens}
    body: dict[str, Any] = {"model": target.model, "messages": list(messages), "stream": True}
    body["stream_options"] = {"include_usage": True}
    if tools:
        body |= {"tools": list(tools), "tool_choice": "auto"}
    return body | {key: value for key, value in wanted.items() if value is not None}


def _events(got: httpx.Response) -> Iterator[dict[str, Any]]:
    """The JSON objects of a server-sent event stream; a missing [DONE] (transformers) is no fault."""
    for line in got.iter_lines():
        if not line.startswith("data:"):
            continue
        text = line[5:].strip()
        if text == "[DONE]":
            return
        event = json.loads(text)
        if "error" in event:
            raise MscliError(Code.REQUEST_FAILED, f"the server gave up: {_words(event)}", "See: mscli logs -n 30")
        yield event


def _broken_off(target: Target, reply: Reply) -> MscliError:
    """A stream without a finish_reason. Ollama ends it so, cleanly, when the process that holds the model dies."""
    return MscliError(
        Code.REQUEST_FAILED,
        f"the reply of {target.name} broke off: the stream ended without a finish_reason, the engine may have died",
        f"See why: mscli status {target.name}; mscli logs {target.name} -n 30. Then ask again.",
        {"text": reply.text, "reasoning": reply.reasoning},
    )


def _refused(target: Target, got: httpx.Response) -> MscliError:
    text = got.read().decode(errors="replace")
    try:
        words = _words(json.loads(text))
    except ValueError:
        words = text.strip()[:300]
    hints = {
        401: "The key is wrong; `mscli env` prints the one in force.",
        503: "The model is still loading: mscli status",
    }
    hint = hints.get(got.status_code, f"See: mscli logs {target.name} -n 30")
    return MscliError(
        Code.REQUEST_FAILED,
        f"{target.name} refused the request with HTTP {got.status_code}: {words}",
        hint,
        {"http_status": got.status_code},
    )


def _words(data: Any) -> str:
    fault = data.get("error", data) if isinstance(data, dict) else data
    return str(fault.get("message", fault)) if isinstance(fault, dict) else str(fault)


class _Preview:
    """A reply while it comes in."""

    def __init__(self, splits_think: bool, listener: Callable[[Piece], None]) -> None:
        self._begun = time.monotonic()
        self._first: float | None = None
        self._splitter = ThinkSplitter() if splits_think else None
        self._listener = listener
        self._pieces: list[Piece] = []
        self._calls: dict[int, ToolCall] = {}
        self._finish: str | None = None
        self._usage: dict[str, int] = {}

    def add(self, event: dict[str, Any]) -> None:
        """Take one event of the stream."""
        self._usage = event.get("usage") or self._usage
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or {}
            self._say(Piece(delta.get("reasoning_content") or delta.get("reasoning") or "", True))
            self._text(delta.get("content") or "")
            for call in delta.get("tool_calls") or ():
                self._call(call)
            self._finish = choice.get("finish_reason") or self._finish

    def _text(self, text: str) -> None:
        for piece in self._splitter.feed(text) if self._splitter else [Piece(text, False)]:
            self._say(piece)

    def _say(self, piece: Piece) -> None:
        if not piece.text:
            return
        self._first = self._first or time.monotonic()
        self._pieces.append(piece)
        self._listener(piece)

    def _call(self, call: dict[str, Any]) -> None:
        self._first = self._first or time.monotonic()
        index, function = call.get("index", 0), call.get("function") or {}
        known = self._calls.get(index, ToolCall("", ""))
        name, arguments = function.get("name") or "", function.get("arguments") or ""
        self._calls[index] = replace(known, name=known.name + name, arguments=known.arguments + arguments)

    def reply(self) -> Reply:
        """The whole reply, when the stream has ended."""
        for piece in self._splitter.end() if self._splitter else ():
            self._say(piece)
        now = time.monotonic()
        return Reply(
            text="".join(piece.text for piece in self._pieces if not piece.thought).lstrip("\n"),
            reasoning="".join(piece.text for piece in self._pieces if piece.thought),
            tool_calls=tuple(self._calls[index] for index in sorted(self._calls)),
            finish_reason=self._finish,
            prompt_tokens=self._usage.get("prompt_tokens"),
            completion_tokens=self._usage.get("completion_tokens"),
            seconds=now - self._begun,
            ttft_s=None if self._first is None else self._first - self._begun,
        )
