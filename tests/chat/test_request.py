"""A server that no longer responds ends a request soon; a slow one that lives does not."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mscli.chat.stream import ConnectionBroke, Watchdog, posted

SOON = {"pause_s": 0.01, "probe_s": 0.2, "misses": 2}


@contextmanager
def server(answers_health: bool) -> Iterator[str]:
    """A server that never answers a POST; its health check as told. Yields its base URL."""
    over = threading.Event()

    def serve(link: socket.socket) -> None:
        asked = link.recv(65536)
        if asked.startswith(b"GET /health ") and answers_health:
            link.sendall(b"HTTP/1.1 503 Loading\r\nContent-Length: 0\r\n\r\n")
            seen.append(asked)
            if len(seen) == 5:
                waiting[0].close()  # the reply ends, though not by the watchdog
        else:
            waiting.append(link)
            over.wait(30)
        link.close()

    def accept() -> None:
        while not over.is_set():
            try:
                link, _ = at.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(link,), daemon=True).start()

    seen: list[bytes] = []
    waiting: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as at:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{at.getsockname()[1]}/v1"
        over.set()


def ask(url: str, watchdog: Watchdog) -> None:
    with watchdog, posted(f"{url}/chat/completions", {}, None, watchdog, 30):
        pass


def test_a_server_that_is_stuck_is_not_waited_for() -> None:
    with server(answers_health=False) as url:
        watchdog = Watchdog(url, "/health", **SOON)
        with pytest.raises(ConnectionBroke):
            ask(url, watchdog)
    assert watchdog.hung


def test_a_slow_server_whose_health_check_answers_is_waited_for() -> None:
    with server(answers_health=True) as url:
        watchdog = Watchdog(url, "/health", **SOON)
        with pytest.raises(ConnectionBroke):  # as the server ends it
            ask(url, watchdog)
    assert not watchdog.hung
