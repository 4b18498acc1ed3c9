"""The HTTP side of an instance: one look whether it answers.

A raw socket, because importing an HTTP client costs more than the whole answer (http.client 20 ms, httpx 110 ms).
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Probe:
    """One health check. `status`: the HTTP status, None without an answer; `reason`: refused, timeout, or a word."""

    status: int | None
    reason: str
    seconds: float


def probe(host: str, port: int, path: str, timeout_s: float = 1.0) -> Probe:
    """GET `path` once; waits at most about `timeout_s` for each of connect and answer."""
    begun = time.monotonic()
    target = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    try:
        with socket.create_connection((target, port), timeout_s) as link:
            request = f"GET {path} HTTP/1.1\r\nHost: {target}:{port}\r\nConnection: close\r\n\r\n"
            link.sendall(request.encode())
            head = link.recv(64)
    except TimeoutError:
        return Probe(None, "timeout", time.monotonic() - begun)
    except OSError as fault:
        return Probe(None, "refused" if isinstance(fault, ConnectionRefusedError) else str(fault), 0.0)
    parts = head.split()
    if len(parts) < 2 or not parts[1].isdigit():
        return Probe(None, "no HTTP answer", time.monotonic() - begun)
    return Probe(int(parts[1]), "", time.monotonic() - begun)
