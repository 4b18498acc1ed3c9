"""The HTTP side of the gateway: OpenAI's and Anthropic's APIs in front of one engine, whatever that engine is.

GET /health answers 503 with the state while the model loads, and 200 then; everything else asks for a key where there
are keys. Of an Ollama server's own API only what uses a model passes.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from anyio import CancelScope, CapacityLimiter, current_time, fail_after, move_on_after
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mscli.engines.serving.access import Keys
from mscli.engines.serving.backends import GONE, Answer, Backend, Server, ask
from mscli.engines.serving.chat_request import Body, RequestError, check
from mscli.engines.serving.formats import ollama
from mscli.engines.serving.formats.apis import APIS, Reply, error, json_object, sent
from mscli.engines.serving.formats.chunks import BROKE_OFF, CHAT, COMPLETION, Chunk
from mscli.engines.serving.worker import say

MAX_BODY_BYTES = 64 << 20  # images travel inside the request
SILENCE_S = 120.0
LINGER_S = 0.2
QUEUE = 256
RETRY_AFTER_S = 5
# Of Ollama's own API: what uses the one model, and what only tells. All else is management of the server.
NATIVE_POST, NATIVE_GET = ("chat", "generate", "show"), ("tags", "ps", "version")
SAMPLING = ("temperature", "top_p")

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass
class Front:
    """What the gateway knows of its engine. `sampling`: what a client gets that sends none; `users`: how many requests
    may compute at once, and `queue` how many may wait for that; `images`: how many a request may hold; `silence_s`: how
    long a client may neither send the rest of its request nor read its answer; `fault`: why it will not be ready."""

    backend: Backend
    alias: str
    keys: Keys
    images: int = 0
    users: int = 1
    queue: int = QUEUE
    sampling: Mapping[str, float] = field(default_factory=dict)
    silence_s: float = SILENCE_S
    ready: bool = False
    fault: str = ""

    def __post_init__(self) -> None:
        self.slots = CapacityLimiter(self.users)

    async def watch(self, pause_s: float = 0.1) -> None:
        """Return once the engine answers, with its model loaded."""
        while not await self.backend.healthy():
            await asyncio.sleep(pause_s)
        self.ready = True

    @property
    def waiting(self) -> int:
        """How many requests wait for a slot."""
        return self.slots.statistics().tasks_waiting

    def turn(self) -> CapacityLimiter:
        """One of the slots. Raises RequestError where too many wait already."""
        if (waiting := self.waiting) >= self.queue:
            raise RequestError(f"{waiting} requests are waiting already: try again later", 429)
        return self.slots

    def app(self) -> Starlette:
        """The application."""
        server = self.backend if isinstance(self.backend, Server) else None
        routes = [
            Route("/health", self._health),
            *(self._route(path, self._models) for path in ("/v1/models", "/v1/models/{name:path}")),
            *(self._route(path, self._openai, "POST") for path in APIS if path != COMPLETION or server),
        ]
        if server and server.dialect.own_api:
            routes += [self._route(f"/api/{name}", self._native, "POST") for name in NATIVE_POST]
            routes += [self._route(f"/api/{name}", self._told) for name in NATIVE_GET]
            routes.append(self._route("/api/{rest:path}", _forbidden, "GET", "POST", "PUT", "DELETE"))
        handlers: Any = {
            RequestError: _refuse,
            HTTPException: self._nothing,
            ClientDisconnect: _left,
            **dict.fromkeys(GONE, _no_engine),
        }
        return Starlette(routes=routes, exception_handlers=handlers)

    def _route(self, path: str, answer: Endpoint, *methods: str) -> Route:
        """An endpoint that asks for the key."""

        async def endpoint(request: Request) -> Response:
            self.keys.admit(request.headers)
            return await answer(request)

        return Route(path, endpoint, methods=methods or None)

    async def _nothing(self, request: Request, fault: HTTPException) -> Response:
        """What no route takes."""
        words = {404: f"there is nothing at {request.url.path}"}.get(fault.status_code, fault.detail)
        try:
            self.keys.admit(request.headers)
        except RequestError as stranger:
            return refused(stranger, request.url.path)
        return refused(RequestError(words, fault.status_code), request.url.path)

    async def _health(self, _request: Request) -> Response:
        if not self.ready:
            return JSONResponse({"status": self.fault or "loading"}, 500 if self.fault else 503)
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
        own = {name: value for name, value in self.sampling.items() if body.get(name) is None}
        body = {**body, "model": self.alias, **own}
        return await _watched(request, self._replied(path, body, told(self.alias, asked), request))

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
        head = [(b"content-type", kind.encode()), (b"cache-control", b"no-cache")]
        await request._send({"type": "http.response.start", "status": 200, "headers": head})
        async for block in blocks:
            with move_on_after(self.silence_s) as patience:
                await request._send({"type": "http.response.body", "body": block, "more_body": True})
            if patience.cancelled_caught:
                say("the client does not read: stopped")
                return _Sent()
        await request._send({"type": "http.response.body", "body": b""})
        return _Sent()

    async def _told(self, request: Request) -> Response:
        """What Ollama tells of itself."""
        assert isinstance(self.backend, Server)
        async with ask(self.backend.port, request.url.path) as answer:
            return Response(await answer.whole(), answer.status, media_type="application/json")

    async def _native(self, request: Request) -> Response:
        """A request of Ollama's own API."""
        body = await self._body(request)
        self._named(body.get("model") or body.get("name"))
        return await _watched(request, self._passed(request.url.path, ollama.own(body, self.alias), request))

    async def _passed(self, path: str, body: Body, request: Request) -> Response:
        assert isinstance(self.backend, Server)
        async with self.turn(), ask(self.backend.port, path, body) as answer:
            if answer.status != 200 or body.get("stream") is False or path.endswith("/show"):
                return Response(await answer.whole(), answer.status, media_type=answer.kind)
            return await self._streamed(_raw(answer), request, answer.kind)

    async def _body(self, request: Request) -> Body:
        """The request's JSON object. Only JSON is read: any web page may send a form. Raises RequestError."""
        if not self.ready:
            raise RequestError(self.fault or "the model is still loading", 500 if self.fault else 503)
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
        return json_object(bytes(raw))


class _Sent(Response):
    """A response that has been sent already."""

    async def __call__(self, *_: object) -> None:
        """Sends nothing."""


async def _watched(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """What `work` gives, which ends when the client leaves."""
    with CancelScope() as scope:
        gone = asyncio.ensure_future(request.receive())
        gone.add_done_callback(lambda left: None if left.cancelled() else scope.cancel())
        try:
            return await work
        finally:
            gone.cancel()
    return await _left(request, ClientDisconnect())


async def _left(_request: Request, _fault: ClientDisconnect) -> Response:
    say("the client has gone: stopped")
    return _Sent()


async def _refuse(request: Request, fault: RequestError) -> Response:
    """Read for a moment what the client still sends: closing over it would take the answer back by a reset."""
    deadline = time.monotonic() + 10 * LINGER_S
    while not getattr(request.state, "read", False) and time.monotonic() < deadline:
        with move_on_after(LINGER_S) as waited:
            message = await request.receive()
        if waited.cancelled_caught:
            break
        request.state.read = not message.get("more_body")
    return refused(fault, request.url.path)


async def _no_engine(request: Request, fault: Exception) -> Response:
    return refused(RequestError(f"the engine does not answer ({type(fault).__name__})", 502), request.url.path)


async def _forbidden(request: Request) -> Response:
    raise RequestError(f"{request.url.path} manages the server, which mscli does: it is not served here", 403)


def refused(fault: RequestError, path: str = CHAT) -> Response:
    """An error in the shape of the API that `path` belongs to."""
    headers = {"Retry-After": str(RETRY_AFTER_S)} if fault.status in (429, 503) else None
    return JSONResponse(error(fault, path), fault.status, headers)


async def _events(reply: Reply, chunks: AsyncIterator[Chunk]) -> AsyncIterator[bytes]:
    """The chunks as server-sent events. A stream that breaks off ends with the reason."""
    try:
        async for made in chunks:
            for event in reply.feed(made):
                yield sent(event)
    except RequestError as fault:
        say(f"error: {fault}")
        yield sent(reply.broken(fault))
        return
    for event in reply.end():
        yield sent(event)
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
