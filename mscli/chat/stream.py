"""One request to an engine whose answer is read as it comes: the server's events, checked field by field, and what of
the text is thought.

On http.client: httpx is slow to import. Whether a server that owes a reply still lives is asked beside it: a stopped or
stuck process keeps its connections open for ever.

Engines differ: llama.cpp says `reasoning_content`, vLLM `reasoning`, and Magistral 2506 writes plain <think> text
into the answer because its system prompt asks for it. The splitter handles the last, piece by piece.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from mscli import http as addresses
from mscli.frozen import frozen
from mscli.instances.state import probe
from mscli.untrusted import words_in

PAUSE_S, PROBE_S, MISSES = 5.0, 5.0, 3


class Watchdog:
    """Asks a server's health check while a request waits, and ends the request's connections once it stays unanswered.

    A context manager around the request, whose socket is told to `heed`.
    A health check that answers anything (503 while loading too) is a sign of life: a long prompt may take minutes.
    `pause_s` between two good checks, `probe_s` for one, `misses` in a row are the end.
    """

    def __init__(
        self, base_url: str, health_path: str, pause_s: float = PAUSE_S, probe_s: float = PROBE_S, misses: int = MISSES
    ) -> None:
        at = urlsplit(base_url)
        self._at, self._path = (at.hostname or "127.0.0.1", at.port or 80), health_path
        self._pause_s, self._probe_s, self._misses = pause_s, probe_s, misses
        self._sockets: list[socket.socket] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.hung = False

    @property
    def patience_s(self) -> float:
        """How long the health check goes unanswered before the request is ended, at least."""
        return self._probe_s * self._misses

    def heed(self, link: socket.socket) -> None:
        """End this connection too when the server does not respond."""
        self._sockets.append(link)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _watch(self) -> None:
        missed = 0
        while not self._over.wait(0 if missed else self._pause_s):
            answer = probe(*self._at, self._path, self._probe_s)
            # Only silence counts: a connection that is refused ends the request by itself.
            missed = missed + 1 if answer.reason == "timeout" else 0
            if missed == self._misses:
                self.hung = True
                for link in self._sockets:
                    with suppress(OSError):
                        link.shutdown(socket.SHUT_RDWR)
                return


_CONNECT_S = 5.0


class NobodyAnswers(Exception):
    """No connection could be made."""


class ConnectionBroke(Exception):
    """The connection ended before the answer did, or brought no HTTP."""


class Answer:
    """An answer whose body is still to come."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response
        self.status = response.status

    def blocks(self) -> Iterator[bytes]:
        """The body as it comes, each block at once. Raises ConnectionBroke."""
        try:
            while block := self._response.read1(addresses.BLOCK_BYTES):
                yield block
        except (OSError, http.client.HTTPException, ValueError) as fault:
            raise ConnectionBroke(_words(fault)) from fault
        if self._response.length:
            raise ConnectionBroke(f"{self._response.length:,} bytes are missing")


@contextmanager
def posted(
    url: str,
    body: Mapping[str, object],
    api_key: str | None,
    watchdog: Watchdog,
    timeout_s: float,
    more_headers: Mapping[str, str] | None = None,
) -> Iterator[Answer]:
    """Send the body as JSON; its answer, of any status. The connection is closed at the end.

    No proxy is used. Waits at most 5 s for the connection and `timeout_s` between two blocks, and less where the
    watchdog ends it. Raises NobodyAnswers and ConnectionBroke.
    """
    parts = urlsplit(url)
    made = addresses.connection(parts, _CONNECT_S, direct=True)
    # No compression: a few bytes could become any number of them.
    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity", **(more_headers or {})}
    if api_key:
        headers["Authorization"] = f"Bearer {api_key}"
    try:
        _connect(made, watchdog, timeout_s)
        try:
            yield Answer(_asked(made, parts.path, json.dumps(body).encode(), headers))
        except (OSError, http.client.HTTPException) as fault:
            raise ConnectionBroke(_words(fault)) from fault
    finally:
        made.close()


def _connect(made: http.client.HTTPConnection, watchdog: Watchdog, timeout_s: float) -> None:
    try:
        made.connect()
    except OSError as fault:
        raise NobodyAnswers(_words(fault)) from fault
    made.sock.settimeout(timeout_s)
    watchdog.heed(made.sock)


def _asked(
    made: http.client.HTTPConnection, path: str, body: bytes, headers: Mapping[str, str]
) -> http.client.HTTPResponse:
    with suppress(BrokenPipeError, ConnectionResetError):  # a server may refuse what it has not read to its end
        made.request("POST", path, body, dict(headers))
    return made.getresponse()


def _words(fault: Exception) -> str:
    if isinstance(fault, TimeoutError):
        return "nothing came in time"
    if isinstance(fault, OSError) and fault.strerror:
        return fault.strerror
    return str(fault) or type(fault).__name__


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
