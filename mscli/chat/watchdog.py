"""Whether a server that owes a reply still lives: a stopped or stuck process keeps its connections open for ever."""

from __future__ import annotations

import contextlib
import socket
import threading
from urllib.parse import urlsplit

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
                    with contextlib.suppress(OSError):
                        link.shutdown(socket.SHUT_RDWR)
                return
