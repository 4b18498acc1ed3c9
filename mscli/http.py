"""HTTP as mscli speaks it: through the proxy that the environment names, with limits on time, bytes and redirects.

On http.client, since over bare Python it costs 20 ms at a start and httpx 115. Only chats (chat/stream.py) and
the pull through an Ollama server, which stream for as long as somebody listens, go other ways.
"""

from __future__ import annotations

import base64
import http.client
import io
import os
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from mscli.frozen import frozen
from mscli.untrusted import parse_json

MOVED = (301, 302, 303, 307, 308)
BLOCK_BYTES = 1 << 16


@frozen
class Limits:
    """What one request may take.

    `connect_s`: for each connection; the name lookup has a deadline of the system's own. `stall_s`: without a byte.
    `total_s`: from the request to the last byte of the answer, redirects included (None: as long as bytes come).
    `body_bytes`: of the answer's body.
    """

    connect_s: float = 10.0
    stall_s: float = 30.0
    total_s: float | None = 60.0
    body_bytes: int = 16 << 20
    redirects: int = 5


LIMITS = Limits()


class HttpFault(Exception):
    """No usable answer. `seen`: what happened, in words without secrets. `kind`: dns (the name is not known), tls (the
    certificate is not trusted), proxy (it refuses), silent (no answer in time), refused (nobody listens, or no way
    there), cut (the connection broke), strange (no HTTP, or a body beyond the limits)."""

    def __init__(self, kind: str, seen: str) -> None:
        super().__init__(seen)
        self.kind, self.seen = kind, seen


@frozen
class Answer:
    """One whole answer. `url`: where it came from at the end, after redirects."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    url: str

    def json(self) -> Any:
        """The body's JSON. Raises ValueError for anything else."""
        return parse_json(self.body)


class Response:
    """An answer whose body is still to come."""

    def __init__(self, response: http.client.HTTPResponse, url: str, limits: Limits) -> None:
        self.status, self.headers, self.url = response.status, response.headers, url
        self._response, self._limits = response, limits

    def blocks(self) -> Iterator[bytes]:
        """The body as it comes, in blocks of at most 64 KiB. Raises HttpFault, also for more than the limits allow."""
        read_bytes = 0
        host = host_in(self.url)
        try:
            while block := self._response.read(BLOCK_BYTES):
                read_bytes += len(block)
                if read_bytes > self._limits.body_bytes:
                    raise HttpFault("strange", f"{host} sends more than {self._limits.body_bytes:,} bytes")
                yield block
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise fault_of(host, error) from error
        if self._response.length:
            raise HttpFault("cut", f"{host} ended its answer {self._response.length:,} bytes early")


def request(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    limits: Limits = LIMITS,
    direct: bool = False,
) -> Answer:
    """One request and its whole answer, whatever its status. Raises HttpFault.

    Redirects are followed up to `limits.redirects`, without `headers` and `body` once they lead to another host: tokens
    are for the host that was asked. `direct`: no proxy. Waits for lookup, connection and answer, within the limits.
    """
    with opened(url, method=method, headers=headers, body=body, limits=limits, direct=direct) as response:
        return Answer(response.status, response.headers, b"".join(response.blocks()), response.url)


@contextmanager
def opened(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    limits: Limits = LIMITS,
    direct: bool = False,
) -> Iterator[Response]:
    """As `request`, with the body still to come. The connection is closed at the end."""
    deadline_s = None if limits.total_s is None else time.monotonic() + limits.total_s
    sent = dict(headers or {})
    for _ in range(limits.redirects + 1):
        made, response = _answered(method, url, sent, body, limits, deadline_s, direct)
        try:
            target = response.headers.get("Location")
            if response.status not in MOVED or target is None or not limits.redirects:
                yield Response(response, url, limits)
                return
        finally:
            made.close()
        further = _joined(url, target)
        if host_in(further) != host_in(url):
            sent, body = {}, None
        url = further
    raise HttpFault("strange", f"{host_in(url)} redirects in a loop")


def _joined(url: str, target: str) -> str:
    try:
        further = urljoin(url, target)
        urlsplit(further)
    except ValueError as error:
        raise HttpFault("strange", f"{host_in(url)} redirects to an invalid address ({error})") from error
    return further


def host_in(url: str) -> str:
    """Host and port of an address, without a login."""
    return urlsplit(url).netloc.rpartition("@")[2]


def connection(url: SplitResult, timeout_s: float, direct: bool = False) -> http.client.HTTPConnection:
    """An unopened connection towards `url`; the first request opens it. Raises HttpFault for another kind of address,
    and for a SOCKS proxy."""
    if url.scheme not in ("http", "https") or not url.hostname:
        raise HttpFault("strange", f"{url.scheme}://{host_in(url.geturl())} is not an HTTP address")
    proxy = None if direct else _proxy(url)
    first = proxy or url
    if url.scheme == "http":
        return http.client.HTTPConnection(first.hostname or "", first.port, timeout=timeout_s)
    made = http.client.HTTPSConnection(first.hostname or "", first.port, timeout=timeout_s, context=_tls())
    if proxy is not None:
        made.set_tunnel(url.hostname, url.port, headers=_login(proxy))
    return made


def request_target(url: SplitResult, direct: bool = False) -> tuple[str, dict[str, str]]:
    """What stands in the request line, and headers for the proxy: a plain HTTP proxy is asked for the whole address."""
    proxy = _proxy(url) if url.scheme == "http" and not direct else None
    if proxy is not None:
        return url.geturl(), _login(proxy)
    return url._replace(scheme="", netloc="", fragment="").geturl() or "/", {}


def fault_of(host: str, error: Exception) -> HttpFault:
    """What a failed exchange with `host` means, in words that hold no secret."""
    if isinstance(error, socket.gaierror):
        return HttpFault("dns", f"cannot resolve {host} (or the proxy): {error.strerror}")
    if isinstance(error, ssl.SSLCertVerificationError):
        return HttpFault("tls", f"the certificate of {host} is not trusted ({error.verify_message})")
    if isinstance(error, ssl.SSLError):
        return HttpFault("tls", f"no TLS connection to {host} ({error.reason or 'TLS failed'})")
    if isinstance(error, TimeoutError):
        return HttpFault("silent", f"{host} does not answer in time")
    if "Tunnel connection failed" in str(error):
        said = str(error).partition(":")[2].strip()
        return HttpFault("proxy", f"the proxy refuses a connection to {host} ({said})")
    if isinstance(error, (ConnectionResetError, BrokenPipeError, http.client.IncompleteRead)):
        return HttpFault("cut", f"the connection to {host} broke ({type(error).__name__})")
    if isinstance(error, OSError):
        return HttpFault("refused", f"no connection to {host} ({error.strerror or type(error).__name__})")
    return HttpFault("strange", f"{host} answers, but not in HTTP ({type(error).__name__})")


def _answered(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes | None,
    limits: Limits,
    deadline_s: float | None,
    direct: bool,
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """One exchange up to the head of the answer, and the connection to close after it."""
    try:
        parts = urlsplit(url)
        made = connection(parts, limits.connect_s, direct)
        target, more = request_target(parts, direct)
    except ValueError as error:
        raise HttpFault("strange", f"'{url}' is not an HTTP address ({error})") from error
    try:
        made.connect()
        made.response_class = _within(limits.stall_s, deadline_s)
        made.request(method, target, body, {"Accept-Encoding": "identity", **headers, **more})
        return made, made.getresponse()
    except (OSError, http.client.HTTPException, ValueError) as error:
        made.close()
        raise fault_of(host_in(url), error) from error


def _within(stall_s: float, deadline_s: float | None) -> type[http.client.HTTPResponse]:
    """The class of an answer that is read byte by byte within these limits: a socket's own timeout begins anew with
    each byte, so that a server which sends one a second would hold us for ever."""

    class Timely(http.client.HTTPResponse):
        def __init__(self, sock: socket.socket, *args: Any, **more: Any) -> None:
            super().__init__(sock, *args, **more)
            self.fp.close()
            self.fp = io.BufferedReader(_Timed(sock, stall_s, deadline_s), BLOCK_BYTES)

    return Timely


class _Timed(io.RawIOBase):
    """Reads of a socket that end with TimeoutError after `stall_s` without a byte, or at the deadline."""

    def __init__(self, sock: socket.socket, stall_s: float, deadline_s: float | None) -> None:
        super().__init__()
        self._sock, self._stall_s, self._deadline_s = sock, stall_s, deadline_s
        self._kept = sock.makefile("rb", buffering=0)  # keeps the socket open when http.client lets go of it

    def readable(self) -> bool:
        """It can only be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """The next bytes of the socket."""
        left_s = self._stall_s if self._deadline_s is None else self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(min(left_s, self._stall_s))
        return self._sock.recv_into(buffer)

    def close(self) -> None:
        """Lets go of the socket."""
        if not self.closed:
            self._kept.close()
        super().close()


def _proxy(url: SplitResult) -> SplitResult | None:
    from urllib.request import getproxies, proxy_bypass  # 5 ms that a chat with this machine does not need

    proxies = getproxies()
    address = proxies.get(url.scheme) or proxies.get("all")
    if not address or proxy_bypass(url.netloc):
        return None
    proxy = urlsplit(address if "://" in address else f"http://{address}")
    if proxy.scheme not in ("http", "https"):
        raise HttpFault("proxy", f"the proxy is {proxy.scheme}, which mscli does not support: give an HTTP proxy")
    return proxy if proxy.port else proxy._replace(netloc=f"{proxy.netloc}:{443 if proxy.scheme == 'https' else 80}")


def _login(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair).decode()}"}


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """As the Hugging Face libraries do: certifi's roots, unless SSL_CERT_FILE or SSL_CERT_DIR says otherwise."""
    if file := os.environ.get("SSL_CERT_FILE"):
        return ssl.create_default_context(cafile=file)
    if folder := os.environ.get("SSL_CERT_DIR"):
        return ssl.create_default_context(capath=folder)
    import certifi

    return ssl.create_default_context(cafile=certifi.where())
