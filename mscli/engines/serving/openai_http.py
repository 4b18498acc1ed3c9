"""The HTTP side of the gateway: OpenAI's and Anthropic's APIs in front of one engine, whatever that engine is.

GET /health answers 503 with the state while the model loads, and 200 then; everything else asks for a key where there
are keys. Of an Ollama server's own API only what uses a model passes.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Protocol, TypeVar

from anyio import CancelScope, current_time, fail_after, move_on_after
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mscli.engines.serving import chat_reply, messages, responses
from mscli.engines.serving.backends import BROKE_OFF, CHAT, COMPLETION, Backend, Chunk, Ollama, OpenAi
from mscli.engines.serving.chat_request import Body, RequestError, check
from mscli.engines.serving.engine_http import GONE, Answer, ask

MAX_BODY_BYTES = 64 << 20  # images travel inside the request
SILENCE_S = 120.0
LINGER_S = 0.2
QUEUE = 256
RETRY_AFTER_S = 5
# Of Ollama's own API: what uses the one model, and what only tells. All else is management of the server.
NATIVE_POST, NATIVE_GET = ("chat", "generate", "show"), ("tags", "ps", "version")
METHODS = ("GET", "POST", "PUT", "DELETE")
# What desktop programs call themselves, as Ollama lets them in.
_APPS = re.compile(r"(?:app|file|tauri|vscode-\w+)://")
SAMPLING = ("temperature", "top_p")

RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"

T = TypeVar("T")
Send = Callable[[dict[str, Any]], Awaitable[None]]


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


# Path -> the request as a chat completion (or a plain one), and the reply in its own shape.
APIS: Mapping[str, tuple[Callable[[Body], Body], Callable[[str, Body], Reply]]] = {
    CHAT: (chat_reply.request, chat_reply.Reply),
    COMPLETION: (chat_reply.request, chat_reply.Plain),
    RESPONSES: (responses.request, responses.Reply),
    MESSAGES: (messages.request, messages.Reply),
}


def say(text: str) -> None:
    """A line of the instance's log."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


class Keys:
    """The keys of a file, one per line; the file is read again when it has changed. Without a file none is asked for.

    A file that cannot be read, or holds none, lets nobody in.
    """

    def __init__(self, path: Path | None) -> None:
        self._path, self._seen, self._keys = path, (0, 0, 0), tuple[bytes, ...]()

    def allow(self, request: Request) -> bool:
        """Whether the request brings one of the keys; every comparison takes the same time."""
        if self._path is None:
            return True
        try:
            now = self._path.stat()
            if (seen := (now.st_mtime_ns, now.st_size, now.st_ino)) != self._seen:
                self._keys, self._seen = tuple(self._path.read_bytes().split()), seen
        except OSError:
            self._keys = ()
        given = request.headers.get("Authorization", "").removeprefix("Bearer ").encode("latin-1")
        given = given or request.headers.get("x-api-key", "").encode("latin-1")
        return sum(hmac.compare_digest(given, key) for key in self._keys) > 0

    def local_only(self, request: Request) -> bool:
        """Whether a web page from elsewhere may be behind a request that needs no key: its name for this server is a
        stranger's, or it says that it is one."""
        if self._path is not None:
            return False
        origin = request.headers.get("Origin", "")
        ours = not origin or _APPS.match(origin) or _local(origin.partition("://")[2] or origin)
        return not (ours and _local(request.headers.get("Host", "")))


def _local(authority: str) -> bool:
    """Whether a host and port is an address, or this machine by its usual name."""
    host = re.sub(r":\d*$", "", authority).strip("[]").lower()
    try:
        ip_address(host)
    except ValueError:
        return host in ("", "localhost") or host.endswith(".localhost")
    return True


@dataclass
class Front:
    """What the gateway knows of its engine. `sampling`: what a client gets that sends none; `users`: how many requests
    may compute at once, and `queue` how many may wait for that; `images`: how many a request may hold; `silence_s`: how
    long a client may neither send the rest of its request nor read its answer."""

    backend: Backend
    alias: str
    keys: Keys
    images: int = 0
    users: int = 1
    queue: int = QUEUE
    sampling: Mapping[str, float] = field(default_factory=dict)
    silence_s: float = SILENCE_S
    ready: bool = False
    waiting: int = 0

    def __post_init__(self) -> None:
        self.slots = asyncio.Semaphore(self.users)

    async def watch(self, pause_s: float = 0.1) -> None:
        """Return once the engine answers, with its model loaded."""
        while not (await self.backend.healthy() and await self.backend.load()):
            await asyncio.sleep(pause_s)
        self.ready = True

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """One of the slots. Raises RequestError where too many wait already."""
        if self.waiting >= self.queue:
            raise RequestError(f"{self.waiting} requests are waiting already: try again later", 429)
        self.waiting += 1
        try:
            await self.slots.acquire()
        finally:
            self.waiting -= 1
        try:
            yield
        finally:
            self.slots.release()

    def app(self) -> Starlette:
        """The application."""
        routes = [
            Route("/health", self._health),
            Route("/v1/models", self._guarded(self._models)),
            Route("/v1/models/{name:path}", self._guarded(self._models)),
            *(
                Route(path, self._guarded(self._openai), methods=["POST"])
                for path in APIS
                if path != COMPLETION or isinstance(self.backend, OpenAi)
            ),
        ]
        if isinstance(self.backend, Ollama):
            routes += [Route(f"/api/{name}", self._guarded(self._native), methods=["POST"]) for name in NATIVE_POST]
            routes += [Route(f"/api/{name}", self._guarded(self._native)) for name in NATIVE_GET]
            routes.append(
                Route("/api/{rest:path}", self._guarded(_forbidden), methods=["GET", "POST", "PUT", "DELETE"])
            )
        handlers: Any = {HTTPException: self._nothing}
        return Starlette(routes=routes, exception_handlers=handlers)

    def _guarded(self, answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint, with the key asked for, and with refusals in the API's shape."""

        async def endpoint(request: Request) -> Response:
            try:
                self._admit(request)
                return await answer(request)
            except RequestError as fault:
                await _read_on(request)
                return refused(fault, request.url.path)
            except GONE as fault:
                words = f"the engine does not answer ({type(fault).__name__})"
                return refused(RequestError(words, 502), request.url.path)
            except ClientDisconnect:
                say("the client has gone: stopped")
                return Response(status_code=499)

        return endpoint

    def _admit(self, request: Request) -> None:
        if not self.keys.allow(request):
            raise RequestError("the API key is missing or wrong", 401)
        if self.keys.local_only(request):
            raise RequestError("without an API key only this machine's own pages and addresses are served", 403)

    async def _nothing(self, request: Request, fault: HTTPException) -> Response:
        """What no route takes."""
        words = {404: f"there is nothing at {request.url.path}"}.get(fault.status_code, fault.detail)
        allowed = self.keys.allow(request)
        told = RequestError(words, fault.status_code) if allowed else RequestError("the API key is missing", 401)
        return refused(told, request.url.path)

    async def _health(self, _request: Request) -> Response:
        if not self.ready:
            return JSONResponse({"status": "loading"}, 503)
        well = await self.backend.healthy()
        return JSONResponse({"status": "ok" if well else "the engine does not answer"}, 200 if well else 503)

    async def _models(self, request: Request) -> Response:
        one = {"id": self.alias, "object": "model", "created": 0, "owned_by": "mscli"}
        if (name := request.path_params.get("name")) is None:
            return JSONResponse({"object": "list", "data": [one]})
        self._named(name)
        return JSONResponse(one)

    def _named(self, name: object) -> None:
        """Raises RequestError for another model than the one that is here."""
        if name and name not in (self.alias, f"{self.alias}:latest"):
            raise RequestError(f"there is no model {name!r:.80} here; this server has {self.alias!r}", 404)

    async def _openai(self, request: Request) -> Response:
        """A reply of the model, in any of the APIs."""
        path, asked = request.url.path, await self._body(request)
        self._named(asked.get("model"))
        translated, told = APIS[path]
        body = translated(asked)
        if path != COMPLETION:
            check(body, self.images, self.backend.formats, self.backend.honors)
        body = {**body, "model": self.alias, **self._filled(body)}
        return await self._watched(request, self._replied(path, body, told(self.alias, asked), request))

    def _filled(self, body: Body) -> dict[str, float]:
        """The model's own sampling, for what the client left out."""
        return {name: value for name, value in self.sampling.items() if body.get(name) is None}

    async def _replied(self, path: str, body: Body, reply: Reply, request: Request) -> Response:
        own = COMPLETION if path == COMPLETION else CHAT
        async with self.turn(), aclosing(self.backend.stream(own, body)) as chunks:
            made = _with(await anext(chunks, {}), chunks)
            if body.get("stream"):
                return await self._streamed(_events(reply, made), request, "text/event-stream")
            async for each in made:
                list(reply.feed(each))
            return JSONResponse(reply.whole())

    async def _streamed(self, blocks: AsyncIterator[bytes], request: Request, kind: str) -> Response:
        """Send the blocks as they come; cut off where the client does not read them."""
        send: Send = request._send
        head = [(b"content-type", kind.encode()), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        async for block in blocks:
            with move_on_after(self.silence_s) as patience:
                await send({"type": "http.response.body", "body": block, "more_body": True})
            if patience.cancelled_caught:
                say("the client does not read: stopped")
                return _Sent()
        await send({"type": "http.response.body", "body": b""})
        return _Sent()

    async def _watched(self, request: Request, work: Coroutine[Any, Any, T]) -> T:
        """What `work` gives, which ends when the client leaves. Raises ClientDisconnect then."""
        with CancelScope() as scope:
            gone = asyncio.ensure_future(request.receive())
            gone.add_done_callback(lambda left: None if left.cancelled() else scope.cancel())
            try:
                return await work
            finally:
                gone.cancel()
        raise ClientDisconnect

    async def _native(self, request: Request) -> Response:
        """A request of Ollama's own API, passed on without what would change how the model sits in memory."""
        assert isinstance(self.backend, Ollama)
        path = request.url.path
        if request.method in ("GET", "HEAD"):
            async with ask(self.backend.port, path) as answer:
                return Response(await answer.whole(), answer.status, media_type="application/json")
        body = dict(await self._body(request))
        self._named(body.get("model") or body.get("name"))
        body.pop("keep_alive", None)
        if isinstance(body.get("options"), dict):
            body["options"] = {name: value for name, value in body["options"].items() if name != "num_ctx"}
        return await self._watched(
            request, self._passed(path, {**body, "model": self.alias, "truncate": False}, request)
        )

    async def _passed(self, path: str, body: Body, request: Request) -> Response:
        assert isinstance(self.backend, Ollama)
        async with self.turn(), ask(self.backend.port, path, body) as answer:
            if answer.status != 200 or body.get("stream") is False or path.endswith("/show"):
                return Response(await answer.whole(), answer.status, media_type=answer.kind)
            return await self._streamed(_raw(answer), request, answer.kind)

    async def _body(self, request: Request) -> Body:
        """The request's JSON object. Only JSON is read: any web page may send a form. Raises RequestError."""
        if not self.ready:
            raise RequestError("the model is still loading", 503)
        if request.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
            raise RequestError("send JSON, with Content-Type: application/json", 415)
        raw, length = bytearray(), int(request.headers.get("Content-Length", 0))
        blocks = request.stream()
        try:
            with fail_after(self.silence_s) as patience:
                while max(len(raw), length) <= MAX_BODY_BYTES and (block := await anext(blocks, b"")):
                    raw += block
                    patience.deadline = current_time() + self.silence_s
        except TimeoutError:
            raise RequestError(f"the rest of the body did not come within {self.silence_s:.0f} s", 408) from None
        if max(len(raw), length) > MAX_BODY_BYTES:
            raise RequestError(f"send a body of at most {MAX_BODY_BYTES} bytes", 413)
        request.state.read = True
        return _json_object(bytes(raw))


class _Sent(Response):
    """A response that has been sent already."""

    async def __call__(self, *_: object) -> None:
        """Sends nothing."""


async def _forbidden(request: Request) -> Response:
    raise RequestError(f"{request.url.path} manages the server, which mscli does: it is not served here", 403)


async def _read_on(request: Request) -> None:
    """Read for a moment what the client still sends: closing over it would take the answer back by a reset."""
    deadline = time.monotonic() + 10 * LINGER_S
    while not getattr(request.state, "read", False) and time.monotonic() < deadline:
        with move_on_after(LINGER_S) as waited:
            message = await request.receive()
        if waited.cancelled_caught:
            return
        request.state.read = not message.get("more_body")


def refused(fault: RequestError, path: str = CHAT) -> Response:
    """An error in the shape of the API that `path` belongs to."""
    headers = {"Retry-After": str(RETRY_AFTER_S)} if fault.status in (429, 503) else None
    if path.startswith("/api/"):
        return JSONResponse({"error": str(fault)}, fault.status, headers)
    error = messages.error if path.startswith(MESSAGES) else chat_reply.error
    return JSONResponse(error(fault), fault.status, headers)


def _json_object(raw: bytes) -> Body:
    """Raises RequestError for anything else, for numbers that are none, and for halves of characters."""

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


async def _events(reply: Reply, chunks: AsyncIterator[Chunk]) -> AsyncIterator[bytes]:
    """The chunks as server-sent events. A stream that breaks off ends with the reason."""
    try:
        async for made in chunks:
            for event in reply.feed(made):
                yield _event(event)
    except RequestError as fault:
        say(f"error: {fault}")
        yield _event(reply.broken(fault))
        return
    for event in reply.end():
        yield _event(event)
    if reply.last:
        yield reply.last


async def _raw(answer: Answer) -> AsyncIterator[bytes]:
    """What Ollama sends; where it breaks off, an error in its own shape comes last."""
    try:
        async for block in answer.blocks():
            yield block
    except GONE:
        yield b"\n" + json.dumps({"error": BROKE_OFF}).encode() + b"\n"


async def _with(first: Chunk, rest: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
    yield first
    async for each in rest:
        yield each


def _event(data: Chunk) -> bytes:
    name = f"event: {data['type']}\n" if "type" in data else ""
    return f"{name}data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()
