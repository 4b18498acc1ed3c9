"""The engines behind the gateway, each as a stream of chunks in the shape of OpenAI's API.

`Library` is a Python object in a process of its own (see worker.py), `Server` one that speaks HTTP, in its dialect.

A request to an engine has a connection of its own, whose answer is read as it comes; the protocol is h11's, as
uvicorn's is. llama.cpp closes the connection behind a stream anyway, and one that was kept may be closed at the other
end just when it is used again. So there is nothing for a pool to do, which was most of what a client took.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from contextlib import aclosing, asynccontextmanager, nullcontext
from itertools import count
from socket import socket
from typing import Any, Protocol

import h11
from anyio import fail_after

from mscli.engines.serving.chat_request import Body, RequestError
from mscli.engines.serving.formats.apis import Dialect, again
from mscli.engines.serving.formats.chunks import BROKE_OFF, CHAT, Chunk, refusal, step

GONE = (OSError, h11.ProtocolError)  # of an engine that is not there, does not answer in time, or ends in the middle
_CONNECT_S = 5.0
_BLOCK_BYTES = 1 << 18


class Answer:
    """An engine's answer, of which the head is here."""

    def __init__(self, link: h11.Connection, reader: asyncio.StreamReader) -> None:
        self._link, self._reader, self.status, self.kind = link, reader, 0, "application/json"

    async def head(self) -> None:
        """Read it. Raises one of GONE."""
        while not isinstance(event := await self._event(), h11.Response):
            pass
        self.status = event.status_code
        self.kind = next((kind.decode("latin-1") for name, kind in event.headers if name == b"content-type"), self.kind)

    async def _event(self) -> Any:
        while (event := self._link.next_event()) is h11.NEED_DATA:
            self._link.receive_data(await self._reader.read(_BLOCK_BYTES))
        return event

    async def blocks(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises one of GONE."""
        while isinstance(event := await self._event(), h11.Data):
            yield bytes(event.data)

    async def lines(self) -> AsyncIterator[bytes]:
        """The body's lines, not the empty ones. Raises one of GONE."""
        held: list[bytes] = []
        async for block in self.blocks():
            *whole, rest = block.split(b"\n")
            if whole:
                whole[0] = b"".join((*held, whole[0]))
                held.clear()
            held.append(rest)
            for line in filter(None, map(bytes.strip, whole)):
                yield line
        if last := b"".join(held).strip():
            yield last

    async def whole(self) -> bytes:
        """The whole body. Raises one of GONE."""
        return b"".join([block async for block in self.blocks()])


@asynccontextmanager
async def ask(
    port: int, path: str, body: Mapping[str, Any] | None = None, most_s: float | None = None
) -> AsyncIterator[Answer]:
    """A GET, or with a body the POST of it; left early, the engine is too. `most_s`: how long the head may take.

    Raises one of GONE."""
    sent = b"" if body is None else json.dumps(body, ensure_ascii=False).encode()
    headers = {"Host": f"127.0.0.1:{port}", "Connection": "close", "Content-Type": "application/json"}
    link = h11.Connection(h11.CLIENT)
    request = h11.Request(
        method="GET" if body is None else "POST",
        target=path,
        headers=[*headers.items(), ("Content-Length", str(len(sent)))],
    )
    with fail_after(_CONNECT_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"".join(filter(None, map(link.send, (request, h11.Data(sent), h11.EndOfMessage())))))
        answer = Answer(link, reader)
        with nullcontext() if most_s is None else fail_after(most_s):
            await answer.head()
        yield answer
    finally:
        writer.close()


_HEALTH_S = 5.0
_LONGEST_LINE_BYTES = 64 << 20


class Backend(Protocol):
    """One engine. `formats`: the types of `response_format` that it honors; `honors`: fields that most do not."""

    formats: Collection[str]
    honors: Collection[str]

    async def healthy(self) -> bool:
        """Whether it answers now, with its model in memory. Waits a few seconds at most, but while the model loads."""

    def stream(self, path: str, request: Body) -> AsyncGenerator[Chunk, None]:
        """The chunks of the reply to a checked request for CHAT or COMPLETION; closed early, the engine stops.

        Raises RequestError, also in the middle."""


class Library:
    """A Python object that answers over a socket."""

    formats: Collection[str] = ("text",)
    honors: Collection[str] = ()

    def __init__(self, link: socket) -> None:
        self._link, self._numbers, self._ready = link, count(), False
        self._replies: dict[int, asyncio.Queue[dict[str, Any]]] = {}

    async def attend(self) -> None:
        """Hand on what the process says, until it has ended, perhaps in the middle of a line."""
        reader, self._writer = await asyncio.open_connection(sock=self._link, limit=_LONGEST_LINE_BYTES)
        try:
            while (line := await reader.readline()).endswith(b"\n"):
                message = json.loads(line)
                if "ready" in message:
                    self._ready, self.formats = True, message["ready"]
                elif reply := self._replies.get(message["id"]):
                    reply.put_nowait(message)
        except ConnectionError:
            pass
        finally:
            self._ready = False
            for reply in self._replies.values():
                reply.put_nowait({"fault": f"{BROKE_OFF}: the engine ended", "status": 502})

    async def healthy(self) -> bool:
        """See `Backend`."""
        return self._ready

    async def stream(self, path: str, request: Body) -> AsyncGenerator[Chunk, None]:
        """See `Backend`."""
        if path != CHAT:
            raise RequestError(f"there is nothing at {path}", 404)
        number, reply, ended = next(self._numbers), asyncio.Queue[dict[str, Any]](), False
        self._replies[number] = reply
        try:
            self._write({"id": number, "request": request})
            await self._writer.drain()
            while not (ended := "step" not in (said := await reply.get())):
                yield step(said["step"])
            if "fault" in said:
                raise RequestError(said["fault"], said["status"], said.get("code"))
        finally:
            del self._replies[number]
            if not ended:
                self._write({"id": number, "left": True})

    def _write(self, message: Body) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")


class Server:
    """A server on `port` of this machine. `context` in tokens."""

    def __init__(self, port: int, health_path: str, alias: str, context: int, dialect: Dialect) -> None:
        self.port, self.dialect = port, dialect
        self.formats, self.honors = dialect.formats, dialect.honors
        self._health_path, self._alias, self._context = health_path, alias, context
        self._loaded = not dialect.own_api

    async def healthy(self) -> bool:
        """See `Backend`. Ollama loads its model, which `mscli up` has made, when it is asked to."""
        well = await self._answers(self._health_path, most_s=_HEALTH_S)
        if well and not self._loaded:
            self._loaded = await self._answers("/api/generate", {"model": self._alias, "stream": False})
        return well and self._loaded

    async def _answers(self, path: str, body: Body | None = None, most_s: float | None = None) -> bool:
        try:
            async with ask(self.port, path, body, most_s) as answer:
                await answer.whole()
                return answer.status == 200
        except GONE:
            return False

    async def stream(self, path: str, request: Body) -> AsyncGenerator[Chunk, None]:
        """See `Backend`. What the model's own template refuses is sent once more, as that takes it."""
        try:
            async with aclosing(self._stream(path, request)) as chunks:
                async for made in chunks:
                    yield made
        except RequestError as fault:
            if (put := again(request, fault)) is None:
                raise
            async with aclosing(self._stream(path, put)) as chunks:
                async for made in chunks:
                    yield made

    async def _stream(self, path: str, request: Body) -> AsyncGenerator[Chunk, None]:
        read, finished = self.dialect.reader(), False
        own = self.dialect.request(path, request, self._alias, self._context)
        async with aclosing(self._lines(*own)) as lines:
            async for line in lines:
                if made := read(line):
                    finished |= any(choice.get("finish_reason") for choice in made.get("choices") or ())
                    yield made
        if not finished:
            raise RequestError(f"{BROKE_OFF}: the engine ended it before its end", 502)

    async def _lines(self, path: str, body: Body) -> AsyncGenerator[bytes, None]:
        """The lines of the answer. Raises RequestError where it is a refusal, or breaks off."""
        try:
            async with ask(self.port, path, body) as answer:
                if answer.status != 200:
                    raise refusal(answer.status, (await answer.whole()).decode(errors="replace"))
                async for line in answer.lines():
                    yield line
        except GONE as fault:
            raise RequestError(f"{BROKE_OFF} ({type(fault).__name__})", 502) from fault
