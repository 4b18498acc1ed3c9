"""A request to an engine on this machine, whose answer is read as it comes. The protocol is h11's, as uvicorn's is.

Each has a connection of its own. llama.cpp closes it behind a stream anyway, and one that was kept may be closed at the
other end just when it is used again. So there is nothing for a pool to do, which was most of what a client took.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import h11
from anyio import fail_after

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
