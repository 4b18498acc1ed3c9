"""`python -m mscli.engines.serving.gateway FLAGS -- PROGRAM ...`: the gateway of an instance, parent of its engine.

It takes the instance's port at once, starts the engine, and answers for it. When the engine ends it ends in the same
way; when it is asked to end, it ends the engine first.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import sys
from argparse import ArgumentParser, Namespace
from asyncio.subprocess import Process
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from mscli.engines.serving.access import Keys
from mscli.engines.serving.backends import Backend, Library, Server
from mscli.engines.serving.chat_request import RequestError
from mscli.engines.serving.formats.apis import DIALECTS
from mscli.engines.serving.openai_http import LINGER_S, QUEUE, SAMPLING, Front, refused
from mscli.engines.serving.worker import say

PORT_STATUS, FAILED, UNABLE = 3, 70, 127
BACKLOG = 1024  # connections that wait to be accepted
_OWN_END_S, _LAST_WORDS_S, _STOPPED_S = 0.5, 0.3, 5.0
LIBRARY = "library"


def parser() -> ArgumentParser:
    """The gateway's flags. `--engine-port`: of the engine, on loopback; a library has none."""
    made = ArgumentParser(prog="gateway", allow_abbrev=False)
    made.add_argument("--kind", choices=(LIBRARY, *DIALECTS), required=True)
    made.add_argument("--alias", required=True)
    made.add_argument("--host", default="127.0.0.1")
    made.add_argument("--port", type=int, required=True)
    made.add_argument("--engine-port", type=int)
    made.add_argument("--health-path", default="/health")
    made.add_argument("--api-key-file", type=Path)
    made.add_argument("--context", type=int, required=True)
    made.add_argument("--users", type=int, default=1)
    made.add_argument("--queue", type=int, default=QUEUE)
    made.add_argument("--images", type=int, default=0)
    made.add_argument("--temperature", type=float)
    made.add_argument("--top-p", type=float)
    made.add_argument("program", nargs="+")
    return made


class Protocol(H11Protocol):
    """HTTP as the library reads it; what is no HTTP is refused as clients of this API read it."""

    _refused = False

    def data_received(self, data: bytes) -> None:
        """What follows on a refusal is read and not looked at: closing over it would take the answer back."""
        if not self._refused:
            super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        """Answer, and close a moment later."""
        answer = refused(RequestError(f"this request cannot be read: {msg}"))
        head = b"".join(b"%s: %s\r\n" % pair for pair in answer.raw_headers)
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n" + head + b"\r\n" + bytes(answer.body))
        self._refused = True
        self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.close)


class Http(uvicorn.Server):
    """The HTTP server of a gateway's application, without signal handlers: the process has its own."""

    def __init__(self, front: Front) -> None:
        quiet = {"log_config": None, "access_log": False, "server_header": False, "proxy_headers": False}
        ends = {"lifespan": "off", "timeout_keep_alive": 75, "timeout_graceful_shutdown": 1}
        super().__init__(uvicorn.Config(front.app(), http=Protocol, ws="none", **quiet, **ends))  # type: ignore[arg-type]

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves the signals alone."""
        yield


def listen(host: str, port: int) -> socket.socket:
    """The instance's port. Ends the process where it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        made = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as fault:
        say(f"error: could not listen on {host}:{port}: {fault.strerror or fault}")
        raise SystemExit(PORT_STATUS) from None
    # Else a small answer behind its head would wait 40 ms for the client's acknowledgment.
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def front(options: Namespace, link: socket.socket) -> Front:
    """The gateway's application for these flags; `link`: to the process of a library."""
    backend: Backend
    if options.kind == LIBRARY:
        backend = Library(link)
    else:
        there = (options.engine_port, options.health_path, options.alias, options.context)
        backend = Server(*there, DIALECTS[options.kind])
    sampling = {name: value for name in SAMPLING if (value := getattr(options, name)) is not None}
    limits = (options.images, options.users, options.queue)
    return Front(backend, options.alias, Keys(options.api_key_file), *limits, sampling)


async def serve(options: Namespace, listening: socket.socket) -> int:
    """Start the engine and answer for it, until it has ended; its exit status."""
    ours, its = socket.socketpair()
    ours.setblocking(False)
    loop, stopping = asyncio.get_running_loop(), set[asyncio.Task[None]]()
    born: asyncio.Future[Process] = loop.create_future()

    def stop(number: int) -> None:
        stopping.add(loop.create_task(_stop(born, number)))

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop, number)
    try:
        stdin = its.fileno() if options.kind == LIBRARY else asyncio.subprocess.DEVNULL
        engine = await asyncio.create_subprocess_exec(*options.program, stdin=stdin)
    except OSError as fault:
        say(f"error: {options.program[0]} could not be executed: {fault.strerror}")
        return UNABLE
    its.close()
    born.set_result(engine)
    made = front(options, ours)
    server, ended = Http(made), loop.create_task(engine.wait())
    serving = loop.create_task(server.serve(sockets=[listening]))
    attending = [made.backend.attend()] if isinstance(made.backend, Library) else []
    working: asyncio.Future[Any] = asyncio.gather(serving, made.watch(), *attending)
    await asyncio.wait((ended, working), return_when=asyncio.FIRST_COMPLETED)
    if failed := working.exception() if working.done() else None:  # unread, clients would hear "loading" for ever
        made.ready, made.fault = False, f"the gateway failed: {failed!r}"
        say(f"error: {made.fault}")
        await _stop(born, signal.SIGTERM)
        await asyncio.wait({ended}, timeout=_STOPPED_S)
    await asyncio.sleep(_LAST_WORDS_S)  # streams that broke off are told so
    server.should_exit = True
    await asyncio.wait({serving})
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    return FAILED if failed else ended.result()


async def _stop(born: asyncio.Future[Process], number: int) -> None:
    """End the engine, once it is started, by the signal that the gateway got, unless it got it too."""
    engine = await born
    with suppress(asyncio.TimeoutError, ProcessLookupError):
        await asyncio.wait_for(engine.wait(), _OWN_END_S)
        return
    with suppress(ProcessLookupError):
        engine.send_signal(number)


def main(words: Sequence[str]) -> int:
    """The whole life of the process; a signal that ended the engine ends this too."""
    options = parser().parse_args(words)
    status = asyncio.run(serve(options, listen(options.host, options.port)))
    if status < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the engine's core is the one worth having
        if -status not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
