"""The HTTP side of an OpenAI-compatible server around a model that is only a Python object.

GET /health answers 503 while the model loads and 200 then; /v1/models and /v1/chat/completions ask for the key where
there is one. The standard library alone: an engine's environment is not asked to hold a web framework.
"""

from __future__ import annotations

import hmac
import json
import re
import socketserver
import sys
import threading
import time
import uuid
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from select import POLLRDHUP, poll
from socket import AF_INET, AF_INET6, SHUT_WR, socket
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING or __package__:
    from mscli.engines.serving.chat_request import Body, RequestError, check
else:  # beside this file, where there is no mscli
    from chat_request import Body, RequestError, check

MAX_BODY_BYTES = 64 << 20  # images travel inside the request
SILENCE_S = 120.0  # how long a client may neither send the rest of its request nor read its answer
LINGER_S = 2.0
PORT_STATUS = 3

# What a library raises where it cannot go on with one request: memory, shapes, numbers. The server lives on.
FAULTS = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Delta:
    """A step of a reply. `calls`: calls of tools as OpenAI's API words them. The last step has `finish` (stop, length
    or tool_calls) and the numbers of tokens."""

    content: str = ""
    reasoning: str = ""
    calls: tuple[Mapping[str, Any], ...] = ()
    finish: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


EMPTY = Delta()


class Model(Protocol):
    """What answers. `formats`: the types of `response_format` that it honors."""

    formats: Collection[str]

    def reply(self, request: Body) -> Generator[Delta, None, None]:
        """The steps of the reply to a checked chat completion request; closed early, it stops computing. A step may be
        empty: between two steps it is seen whether the client is still there. Raises RequestError before the first."""


def say(text: str) -> None:
    """A line of the server's log."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def flags(name: str) -> ArgumentParser:
    """The flags of every such server. Sizes in tokens; `--users`: how many requests may compute at once; `--images`:
    how many one request may hold."""
    parser = ArgumentParser(prog=name, allow_abbrev=False)
    parser.add_argument("--model", required=True)
    parser.add_argument("--alias", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--api-key-file", type=Path)
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--users", type=int, default=1)
    parser.add_argument("--images", type=int, default=0)
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--chat-template", type=Path)
    return parser


def run(options: Namespace, load: Callable[[], Model]) -> None:
    """Listen, load, then answer for ever. The port is taken before the load, so that a taken one is told at once."""
    try:
        server = Server(options)
    except OSError as fault:
        say(f"error: could not listen on {options.host}:{options.port}: {fault.strerror or fault}")
        raise SystemExit(PORT_STATUS) from None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    say(f"loading {options.model}")
    server.model = load()
    say(f"ready: {options.alias} on http://{options.host}:{options.port}/v1, context={options.context}")
    threading.Event().wait()


class Server(ThreadingHTTPServer):
    """One thread per connection, `users` of which compute at once. `model` is None while it loads."""

    daemon_threads = True
    request_queue_size = 1024  # connections that wait to be accepted; the 5 of the library reset a burst of clients

    def __init__(self, options: Namespace) -> None:
        self.address_family = AF_INET6 if ":" in options.host else AF_INET
        self.model: Model | None = None
        self.alias = str(options.alias)
        self.images = int(options.images)
        self.slots = threading.Semaphore(options.users)
        self.key = options.api_key_file.read_text().strip() if options.api_key_file else None
        super().__init__((options.host, options.port), Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone is no fault; anything else is told with its traceback."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def shutdown_request(self, request: Any) -> None:
        """Reads for a moment what the client still sends: closing over it would take the answer back by a reset."""
        link: socket = request
        deadline = time.monotonic() + LINGER_S
        with suppress(OSError):
            link.shutdown(SHUT_WR)
            link.settimeout(LINGER_S)
            while link.recv(1 << 16) and time.monotonic() < deadline:
                pass
        self.close_request(request)

    def server_bind(self) -> None:
        """Without the look-up of the host's full name, which can take seconds where there is no name server."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    timeout = SILENCE_S
    disable_nagle_algorithm = True  # a small answer behind its head would wait 40 ms for the client's acknowledgment
    server: Server
    path = ""  # until a request line is read

    def log_message(self, format: str, *args: object) -> None:
        """Only what is not a health check is worth a line."""
        if self.path != "/health":
            say(f"{self.address_string()} {format % args}")

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the library refuses by itself, as clients of this API read it. A method unknown to it is 501 there."""
        self.close_connection = True
        self.request_version = self.protocol_version  # else an answer to no HTTP at all has no head
        self._fault({501: 405, 505: 400}.get(code, code), message or explain or "this request cannot be read")

    def do_GET(self) -> None:
        """Health and the list of models."""
        if self.path == "/health":
            ready = self.server.model is not None
            self._json(200 if ready else 503, {"status": "ok" if ready else "loading"})
        elif not self._allowed():
            self._fault(401, "the API key is missing or wrong")
        elif self.path == "/v1/models":
            self._json(200, {"object": "list", "data": [{"id": self.server.alias, "object": "model", "owned_by": ""}]})
        else:
            self._fault(404, f"there is nothing at {self.path}")

    def do_POST(self) -> None:
        """A chat completion."""
        body = self._body()
        if body is None:
            return
        model = self.server.model
        if not self._allowed():
            self._fault(401, "the API key is missing or wrong")
        elif self.path != "/v1/chat/completions":
            self._fault(404, f"there is nothing at {self.path}")
        elif model is None:
            self._fault(503, "the model is still loading")
        elif (body.get("model") or self.server.alias) != self.server.alias:
            self._fault(404, f"there is no model {body['model']!r:.80} here; this server has {self.server.alias!r}")
        else:
            with self.server.slots:
                self._chat(model, body)

    def _chat(self, model: Model, body: Body) -> None:
        with closing(model.reply(body)) as computing:
            steps = self._watched(computing)
            try:
                check(body, self.server.images, model.formats)
                first = next(steps)
                whole = None if body.get("stream") else _whole([first, *steps], self.server.alias)
            except (RequestError, RecursionError) as fault:
                self._fault(400, str(fault))
            except FAULTS as fault:
                say(f"error: {type(fault).__name__}: {fault}")
                self._fault(500, f"the model could not answer: {fault}")
            else:
                if whole is not None:
                    self._json(200, whole)
                else:
                    self._stream(first, steps, bool((body.get("stream_options") or {}).get("include_usage")))

    def _watched(self, steps: Iterator[Delta]) -> Iterator[Delta]:
        """The steps for as long as the client is there. Raises ConnectionAbortedError when it has gone."""
        line = poll()
        line.register(self.connection, POLLRDHUP)
        while not line.poll(0):
            step = next(steps, None)
            if step is None:
                return
            yield step
        say("the client has gone: stopped")
        raise ConnectionAbortedError

    def _stream(self, first: Delta, steps: Iterator[Delta], usage: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        frame = _frame("chat.completion.chunk", self.server.alias)
        delta, last = {"role": "assistant", **_message(first)}, first
        self._event({**frame, "choices": [_choice(delta, first.finish)]})
        try:
            for last in steps:
                if last != EMPTY:
                    self._event({**frame, "choices": [_choice(_message(last), last.finish)]})
        except FAULTS as fault:  # too late for a status: the stream ends with the reason
            say(f"error: {type(fault).__name__}: {fault}")
            self._event({"error": {"message": str(fault), "code": 500, "type": "server_error"}})
            return
        if usage:
            self._event({**frame, "choices": [], "usage": _usage(last)})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, data: Mapping[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n")

    def _allowed(self) -> bool:
        if self.server.key is None:
            return True
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        return hmac.compare_digest(given.encode(), self.server.key.encode())

    def _body(self) -> Body | None:
        """The request's JSON object; None when it was refused. Only JSON is read: any web page may send a form."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            self._fault(411, "send a body of known length, with Content-Length")
        elif len(length) > 12 or int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            self._fault(413, f"send a body of at most {MAX_BODY_BYTES} bytes")
        elif len(raw := self.rfile.read(int(length))) < int(length):
            raise ConnectionAbortedError
        elif self.headers.get_content_type() != "application/json":
            self._fault(415, "send JSON, with Content-Type: application/json")
        else:
            try:
                return _json_object(raw)
            except (ValueError, RecursionError) as fault:
                self._fault(400, f"the body is no JSON object: {fault}")
        return None

    def _fault(self, status: int, message: str) -> None:
        self._json(status, {"error": {"message": message, "code": status, "type": "invalid_request_error"}})

    def _json(self, status: int, data: Mapping[str, Any]) -> None:
        raw = json.dumps(data, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


def _json_object(raw: bytes) -> Body:
    """Raises ValueError for anything else, for numbers that are none, and for halves of characters."""

    def refused(word: str) -> None:
        raise ValueError(f"{word} is not a number")

    body = json.loads(raw, parse_constant=refused)
    if not isinstance(body, dict):
        raise ValueError("it is something else")
    if re.search(rb"\\u[dD][89a-fA-F]", raw):
        json.dumps(body, ensure_ascii=False).encode()
    return body


def _frame(kind: str, alias: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": alias}


def _choice(delta: Mapping[str, Any], finish: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish}


def _message(step: Delta) -> dict[str, Any]:
    """The parts of a step that are there."""
    parts = {"content": step.content, "reasoning_content": step.reasoning}
    message: dict[str, Any] = {name: text for name, text in parts.items() if text}
    if step.calls:
        message["tool_calls"] = [{"index": number, **call} for number, call in enumerate(step.calls)]
    return message


def _whole(steps: list[Delta], alias: str) -> dict[str, Any]:
    last, calls = steps[-1], [call for step in steps for call in step.calls]
    message: dict[str, Any] = {"role": "assistant", "content": "".join(step.content for step in steps)}
    if reasoning := "".join(step.reasoning for step in steps):
        message["reasoning_content"] = reasoning
    if calls:
        message |= {"content": message["content"] or None, "tool_calls": calls}
    choice = {"index": 0, "message": message, "finish_reason": last.finish}
    return {**_frame("chat.completion", alias), "choices": [choice], "usage": _usage(last)}


def _usage(last: Delta) -> dict[str, int | None]:
    prompt, completion = last.prompt_tokens, last.completion_tokens
    total = None if prompt is None or completion is None else prompt + completion
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}
