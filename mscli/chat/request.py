"""One request to an engine whose answer is read as it comes, on http.client: httpx is slow to import.

And whether a server that owes a reply still lives: a stopped or stuck process keeps its connections open for ever.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from mscli import http as addresses
from mscli.instances.state import probe

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
