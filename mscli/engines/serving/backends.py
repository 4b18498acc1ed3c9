"""The engines behind the gateway, each as a stream of chunks in the shape of OpenAI's API.

`Library` is a Python object in a process of its own (see worker.py), `Server` one that speaks HTTP, in its dialect.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from itertools import count
from socket import socket
from typing import Any, Protocol

from mscli.engines.serving.chat_request import Body, RequestError
from mscli.engines.serving.engine_http import GONE, ask
from mscli.engines.serving.formats.chunks import BROKE_OFF, CHAT, Chunk, refusal, step
from mscli.engines.serving.formats.dialects import Dialect

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
        """See `Backend`."""
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
