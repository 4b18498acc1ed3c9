"""A reply as it streams in: the server's events, checked field by field, and what of the text is thought.

Engines differ: llama.cpp says `reasoning_content`, vLLM `reasoning`, and Magistral 2506 writes plain <think> text
into the answer because its system prompt asks for it. The splitter handles the last, piece by piece.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from mscli.frozen import frozen
from mscli.untrusted import words_in

_LONGEST_LINE_BYTES, _MOST_BYTES = 16 * 2**20, 256 * 2**20
_OPEN, _CLOSE = "<think>", "</think>"
_BROKE_OFF = "the reply broke off"  # in mscli's gateway's words


@frozen
class Piece:
    """A piece of a reply: thought, or (`thought` False) answered."""

    text: str
    thought: bool


class ThinkSplitter:
    """Takes the reply's text as it streams in; a tag may be cut anywhere between two pieces."""

    def __init__(self) -> None:
        self._held = ""
        self._thinking = False

    def feed(self, text: str) -> list[Piece]:
        """The pieces that are certain so far; what may be the beginning of a tag is kept back."""
        self._held += text
        pieces: list[Piece] = []
        while (tag := self._tag()) in self._held:
            before, _, self._held = self._held.partition(tag)
            self._add(pieces, before)
            self._thinking = not self._thinking
        keep = self._possible_tag()
        self._add(pieces, self._held[: len(self._held) - keep])
        self._held = self._held[len(self._held) - keep :]
        return pieces

    def end(self) -> list[Piece]:
        """What was kept back, when no more text comes."""
        pieces: list[Piece] = []
        self._add(pieces, self._held)
        self._held = ""
        return pieces

    def _tag(self) -> str:
        return _CLOSE if self._thinking else _OPEN

    def _possible_tag(self) -> int:
        """How many characters at the end could be the beginning of the next tag."""
        tag = self._tag()
        return next((n for n in range(len(tag) - 1, 0, -1) if self._held.endswith(tag[:n])), 0)

    def _add(self, pieces: list[Piece], text: str) -> None:
        if text:
            pieces.append(Piece(text, self._thinking))


class BadStream(Exception):
    """What a server sent is no reply: the text says what is wrong with it, in one clause. `evidence`: its own words."""

    def __init__(self, what: str, evidence: str = "") -> None:
        super().__init__(what)
        self.evidence = evidence


@frozen
class CallPart:
    """What one event adds to the tool call number `index`."""

    index: int
    name: str
    arguments: str


@frozen
class Delta:
    """What one event adds to the reply. `usage`: (prompt tokens, completion tokens), None each where not told."""

    text: str
    reasoning: str
    calls: tuple[CallPart, ...]
    finish_reason: str | None
    usage: tuple[int | None, int | None] | None


def deltas(blocks: Iterable[bytes]) -> Iterator[Delta]:
    """What a server-sent event stream adds, event by event. A missing [DONE] (transformers) is no fault.

    Raises BadStream for anything that is not such a stream (the shapes were all seen, or made by fuzzing), for an error
    that the server reports in it, and where it sends more than a reply can be.
    """
    for line in _lines(blocks):
        field, _, value = line.partition(":")
        if field == "data":
            if value.strip() == "[DONE]":
                return
            yield _delta(_event(value.strip()))
        elif field not in ("", "event", "id", "retry"):
            raise BadStream("it did not send an event stream", line)


def _lines(blocks: Iterable[bytes]) -> Iterator[str]:
    """The lines that are not empty, of at most 16 MiB each and 256 MiB in all."""
    held, total = b"", 0
    for block in blocks:
        total += len(block)
        *whole, held = (held + block).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        if len(held) > _LONGEST_LINE_BYTES or total > _MOST_BYTES:
            raise BadStream("it sent more than a reply can hold")
        yield from (line.decode(errors="replace") for line in whole if line)
    if held.strip():
        yield held.decode(errors="replace")


def _event(text: str) -> dict[str, Any]:
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        raise BadStream("it sent an event that is not JSON", text) from None
    if not isinstance(event, dict):
        raise BadStream("it sent an event that is not an object", text)
    if event.get("error"):
        words = words_in(event)
        raise BadStream("the reply was cut off" if words.startswith(_BROKE_OFF) else "it reported an error", words)
    return event


def _delta(event: dict[str, Any]) -> Delta:
    text = reasoning = ""
    calls: list[CallPart] = []
    finish = None
    for choice in _list(event.get("choices"), "choices"):
        delta = _object(choice.get("delta"), "delta")
        text += _text(delta.get("content"), "content")
        reasoning += _text(delta.get("reasoning_content") or delta.get("reasoning"), "reasoning")
        calls += [_call(part) for part in _list(delta.get("tool_calls"), "tool_calls")]
        finish = _text(choice.get("finish_reason"), "finish_reason") or finish
    return Delta(text, reasoning, tuple(calls), finish, _usage(event.get("usage")))


def _call(part: dict[str, Any]) -> CallPart:
    index, function = part.get("index", 0), _object(part.get("function"), "function")
    if type(index) is not int:
        raise BadStream("the index of a tool call is not a number", str(index))
    return CallPart(index, _text(function.get("name"), "name"), _text(function.get("arguments"), "arguments"))


def _usage(value: Any) -> tuple[int | None, int | None] | None:
    if value is None:
        return None
    usage = _object(value, "usage")
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    for count in counts:
        if count is not None and (type(count) is not int or count < 0):
            raise BadStream("a token count is not a number", str(count))
    return counts[0], counts[1]


def _object(value: Any, what: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadStream(f"{what} is not an object", str(value))
    return value


def _list(value: Any, what: str) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadStream(f"{what} is not a list", str(value))
    return [_object(item, what) for item in value]


def _text(value: Any, what: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadStream(f"{what} is not text", str(value))
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise BadStream(f"{what} is not valid Unicode", repr(value))
    return value
