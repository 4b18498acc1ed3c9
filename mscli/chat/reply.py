"""One streamed reply of an OpenAI-compatible server, in one shape whatever the engine."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from mscli.catalog.sampling import Sampling
from mscli.chat.message import Message, Truncation, least_prompt_tokens, truncation
from mscli.chat.stream import (
    Answer,
    BadStream,
    CallPart,
    ConnectionBroke,
    Delta,
    NobodyAnswers,
    Piece,
    ThinkSplitter,
    Watchdog,
    deltas,
    posted,
)
from mscli.errors import Code, MscliError
from mscli.frozen import frozen, replace
from mscli.instances.log import part
from mscli.instances.process import memory_kills
from mscli.instances.records import Record, api_key, must_run
from mscli.untrusted import error_words

_MEASURABLE_S = 0.05
_LONGEST_EVIDENCE = 300
_LOG_BYTES = 2**20
# llama-server's words, which Ollama passes on.
_TOO_LONG = re.compile(r"request \((\d+) tokens\) exceeds the available context size \((\d+) tokens\)")


@frozen
class Target:
    """Where to ask. `splits_think`: the answer's text may hold <think> tags. `name`: the instance, for hints.

    `system_prompt`: the one its model's makers recommend, None where they recommend none. `context`: in tokens, prompt
    and reply together; None: not known. `engine` and its `log`, to look for the cause of a reply that breaks off.
    `health_path`: what a server answers that lives.
    """

    name: str
    base_url: str
    api_key: str | None
    model: str
    sampling: Sampling
    splits_think: bool
    system_prompt: str | None = None
    context: int | None = None
    engine: str = ""
    log: Path | None = None
    health_path: str = "/health"


def target_of(record: Record) -> Target:
    """The instance as a client sees it. Raises NOT_RUNNING for one that has died or was stopped, FILE when its key
    cannot be read."""
    must_run(record)
    splits = record.reasoning == "think-text"
    context = record.plan.context
    sampling = _within(record.sampling, context)
    return Target(
        record.name,
        record.base_url,
        api_key(record),
        record.alias,
        sampling,
        splits,
        record.system_prompt,
        context,
        record.plan.engine,
        record.log,
        record.health_path,
    )


def _within(sampling: Sampling, context: int) -> Sampling:
    """vLLM refuses a request whose prompt and longest reply exceed the context together, and Magistral's makers
    recommend 40,960 tokens for the one and for the other. Where such a limit leaves little to the prompt it is not
    sent: the context ends the reply all the same."""
    too_much = sampling.max_tokens is not None and 2 * sampling.max_tokens > context
    return replace(sampling, max_tokens=None) if too_much else sampling


@frozen
class ToolCall:
    """A function the model wants called; `arguments` is JSON text as the model wrote it."""

    name: str
    arguments: str


@frozen
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
    fields: Mapping[str, object] | None = None,
) -> Reply:
    """Send the conversation and return the reply; `listener` hears each piece as it comes. `fields` of the request are
    added to those of the target.

    Waits at most `timeout_s` between two pieces, and no longer than a server that does not respond at all needs to be
    sure of (see request.py). Raises REQUEST_FAILED with the server's own words, or when the connection breaks, or when
    the stream ends before the reply does (details["text"]: what had come of it), or with details["unresponsive"];
    NOT_RUNNING when nobody answers. KeyboardInterrupt passes: the request ends with it.
    """
    preview, witness = _Preview(target.splits_think, listener), _Witness(target)
    watchdog = Watchdog(target.base_url, target.health_path)
    try:
        with watchdog:
            send = partial(_send, target, watchdog, timeout_s)
            sent_tokens = _too_many(target, messages, send) or least_prompt_tokens(messages)
            _read(target, {**_body(target, messages, tools), **(fields or {})}, send, preview)
        reply = preview.reply()
    except NobodyAnswers as fault:
        raise MscliError(
            Code.NOT_RUNNING, f"{target.name} does not answer at {target.base_url}", "See: mscli status"
        ) from fault
    except (BadStream, ConnectionBroke) as fault:
        if watchdog.hung:
            raise _unresponsive(target, watchdog, preview) from fault
        if isinstance(fault, BadStream):
            why = f"{target.name} sent no valid reply: {fault}{witness.words(preview.unfinished)}"
            raise _failed(target, why, preview, fault.evidence) from fault
        why = f"the connection to {target.name} broke: {fault}{witness.words(False)}"
        raise _failed(target, why, preview) from fault
    return replace(reply, truncated=truncation(sent_tokens, reply.prompt_tokens))


def _send(
    target: Target, watchdog: Watchdog, timeout_s: float, path: str, body: Mapping[str, object]
) -> AbstractContextManager[Answer]:
    """Send a request to a path below the server's root."""
    root = target.base_url.removesuffix("/v1")
    return posted(f"{root}{path}", body, target.api_key, watchdog, timeout_s)


Send = Callable[[str, Mapping[str, object]], AbstractContextManager[Answer]]


def _read(target: Target, body: dict[str, Any], send: Send, preview: _Preview) -> None:
    """Send the request and give the preview what comes."""
    with send("/v1/chat/completions", body) as got:
        if got.status != 200:
            raise _refused(target, got)
        for delta in deltas(got.blocks()):
            preview.add(delta)


def _too_many(target: Target, messages: Sequence[Message], send: Send) -> int | None:
    """The tokens of a conversation that is longer than the context, as Ollama counts them; None where it fits, or
    nobody tells. Waits for the prompt to be read, and the server keeps what it has read for the request that follows.

    Its OpenAI endpoint drops the oldest messages, and cuts one long one where the template is Ollama's own, without a
    word; the native one can be told not to. No token is shorter than a byte.
    """
    texts = [message.get("content") for message in messages]
    size_bytes = sum(len(text.encode()) for text in texts if isinstance(text, str))
    if target.engine != "ollama" or size_bytes <= (target.context or size_bytes):
        return None
    if not all(isinstance(text, str) for text in texts):
        return None  # images are said otherwise there
    body = {"model": target.model, "messages": list(messages), "options": {"num_predict": 1}}
    try:
        with send("/api/chat", {**body, "stream": False, "truncate": False}) as got:
            said = b"".join(_beginning(got)).decode(errors="replace")
    except (NobodyAnswers, ConnectionBroke):
        return None  # the request itself will tell
    told = _TOO_LONG.search(said)
    return int(told[1]) if told else None


class _Witness:
    """What the engine logs, and the kernel kills, from now on: why a reply broke off is in neither the stream nor its
    HTTP status."""

    def __init__(self, target: Target) -> None:
        self._target, self._kills = target, memory_kills()
        self._log_start = target.log.stat().st_size if target.log and target.log.exists() else 0

    def words(self, unfinished: bool) -> str:
        """The cause as the end of a message; empty where nothing shows it. `unfinished`: the stream ended too early."""
        from mscli.diagnosis.causes import LIKELY
        from mscli.diagnosis.diagnose import diagnose  # reads the signatures; only a reply that broke off needs it

        if self._kills is not None and (memory_kills() or 0) > self._kills:
            return ". Cause: the kernel killed a process because memory ran out"
        said = part(self._target.log, self._log_start, _LOG_BYTES) if self._target.log else ""
        found = [cause for cause in diagnose(said, self._target.engine) if cause.confidence >= LIKELY] if said else []
        if found:  # why it died says more than that it did
            return f". Cause: {min(found, key=lambda cause: cause.code == 'engine_crashed').summary}"
        died = unfinished and self._target.engine == "ollama"
        return ". The process that holds the model died; the next request loads it again" if died else ""


def _unresponsive(target: Target, watchdog: Watchdog, preview: _Preview) -> MscliError:
    message = f"{target.name} does not respond: its health check went unanswered for {watchdog.patience_s:.0f} s"
    fault = _failed(target, message, preview)
    hint = f"To start it again: mscli restart {target.name}. Its log: mscli logs {target.name} -n 30"
    return MscliError(fault.code, fault.message, hint, {**fault.details, "unresponsive": True})


def _failed(target: Target, message: str, preview: _Preview, evidence: str = "") -> MscliError:
    hint = f"To see whether it is running: mscli status. Its log: mscli logs {target.name} -n 30"
    details: dict[str, object] = {"text": preview.said(thought=False), "reasoning": preview.said(thought=True)}
    if line := " ".join(evidence.split())[:_LONGEST_EVIDENCE]:
        details["evidence"] = [line]
    return MscliError(Code.REQUEST_FAILED, message, hint, details)


def _body(target: Target, messages: Sequence[Message], tools: Sequence[Mapping[str, object]]) -> dict[str, Any]:
    sampling = target.sampling
    wanted = {"temperature": sampling.temperature, "top_p": sampling.top_p, "max_tokens": sampling.max_tokens}
    body: dict[str, Any] = {"model": target.model, "messages": list(messages), "stream": True}
    body["stream_options"] = {"include_usage": True}
    if tools:
        body |= {"tools": list(tools), "tool_choice": "auto"}
    return body | {key: value for key, value in wanted.items() if value is not None}


def _refused(target: Target, got: Answer) -> MscliError:
    text = b"".join(_beginning(got)).decode(errors="replace")
    words = error_words(text, 300)
    if too_long := _TOO_LONG.search(words):
        sent, context = (f"{int(number):,}" for number in too_long.groups())
        words = f"the prompt has {sent} tokens, the context holds {context}, and none of it was processed"
    hints = {
        401: "The key is wrong; `mscli env` prints the one in force.",
        503: "The model is still loading: mscli status",
    }
    hint = hints.get(got.status, f"See: mscli logs {target.name} -n 30")
    if too_long:
        hint = "Shorten it, or start with a larger --ctx."
    return MscliError(
        Code.REQUEST_FAILED,
        f"{target.name} refused the request with HTTP {got.status}: {words}",
        hint,
        {"http_status": got.status},
    )


def _beginning(got: Answer) -> Iterator[bytes]:
    """The first MiB of a body, in which an error's words stand."""
    left = 2**20
    for block in got.blocks():
        yield block[:left]
        left -= len(block)
        if left <= 0:
            return


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
        self._usage: tuple[int | None, int | None] = (None, None)
        self._events = 0

    def add(self, delta: Delta) -> None:
        """Take what one event adds."""
        self._events += 1
        self._usage = delta.usage or self._usage
        self._say(Piece(delta.reasoning, True))
        self._text(delta.text)
        for call in delta.calls:
            self._call(call)
        self._finish = delta.finish_reason or self._finish

    def _text(self, text: str) -> None:
        for piece in self._splitter.feed(text) if self._splitter else [Piece(text, False)]:
            self._say(piece)

    def _say(self, piece: Piece) -> None:
        if not piece.text:
            return
        self._first = self._first or time.monotonic()
        self._pieces.append(piece)
        self._listener(piece)

    def _call(self, part: CallPart) -> None:
        self._first = self._first or time.monotonic()
        known = self._calls.get(part.index, ToolCall("", ""))
        self._calls[part.index] = ToolCall(known.name + part.name, known.arguments + part.arguments)

    def said(self, thought: bool) -> str:
        """What was thought, or answered, so far."""
        text = "".join(piece.text for piece in self._pieces if piece.thought == thought)
        return text if thought else text.lstrip("\n")

    @property
    def unfinished(self) -> bool:
        """Whether something came, and not how it ends."""
        return self._events > 0 and self._finish is None

    def reply(self) -> Reply:
        """The whole reply, when the stream has ended. Raises BadStream for one that broke off or says nothing."""
        for piece in self._splitter.end() if self._splitter else ():
            self._say(piece)
        self._check()
        now = time.monotonic()
        return Reply(
            text=self.said(thought=False),
            reasoning=self.said(thought=True),
            tool_calls=tuple(self._calls[index] for index in sorted(self._calls)),
            finish_reason=self._finish,
            prompt_tokens=self._usage[0],
            completion_tokens=self._usage[1],
            seconds=now - self._begun,
            ttft_s=None if self._first is None else self._first - self._begun,
        )

    def _check(self) -> None:
        """Ollama ends the stream of a runner that died like any other, and mistral.rs sends none at all."""
        if not self._events:
            raise BadStream("it sent no event")
        if self._finish is None:
            raise BadStream("the reply was cut off: it ended without a finish_reason")
        if self._finish in ("abort", "error"):
            raise BadStream(f"the reply was cut off: the server ended it with finish_reason {self._finish!r}")
        if any(not call.name for call in self._calls.values()):
            raise BadStream("a tool call has no name")
        if not self._pieces and not self._calls:
            raise BadStream(f"the reply is empty (finish_reason {self._finish!r})")
