"""Byte ranges of a file, from wherever its location says: a local copy, Xet storage, or plain HTTP.

A reader belongs to one thread and yields bytes as they arrive; `abort` may come from another thread and ends a blocked
read. HTTP goes through http.client: measured against httpx on loopback, the same bytes cost it about a third of the
processor time, because it reads a socket in blocks of 1 MiB where httpx takes 64 KiB.
"""

from __future__ import annotations

import http.client
import os
import socket
import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urljoin, urlsplit

from mscli.errors import Code, MscliError
from mscli.http import MOVED, HttpFault, connection, host_in, request_target
from mscli.weights.fault import PassingFault, Timeouts, WrongAnswerFault, answer_fault
from mscli.weights.hub import Location, Xet
from mscli.weights.partial import Gap

BLOCK_BYTES = 1 << 20
# TLS hands out 16 KiB at a time: these are gathered, so that arrival is written down per 64 KiB or 4 times a second.
GATHER_BYTES, GATHER_S = 1 << 16, 0.25
MAX_REDIRECTS, MOST_BYTES_OF_A_REDIRECT = 5, 1 << 16


class Ranges(Protocol):
    """A reader of byte ranges."""

    def read(self, location: Location, gap: Gap, size: int) -> Iterator[bytes]:
        """The bytes of `gap` in a file of `size` bytes, in order; may end early. Raises PassingFault."""

    def abort(self) -> None:
        """Ends a read that is blocked in another thread."""


class LocalRanges:
    """Ranges of a file on this machine."""

    def read(self, location: Location, gap: Gap, size: int) -> Iterator[bytes]:
        """The bytes of `gap`. Raises MscliError(FILE) when the file cannot be read or has another size."""
        path = Path(unquote(urlsplit(location.url).path))
        try:
            with path.open("rb", buffering=0) as file:
                start = gap.start if os.fstat(file.fileno()).st_size == size else gap.end + 1
                while start < gap.end and (data := os.pread(file.fileno(), min(BLOCK_BYTES, gap.end - start), start)):
                    yield data
                    start += len(data)
        except OSError as error:
            raise MscliError(Code.FILE, f"cannot read {path}: {error.strerror}") from error
        if start != gap.end:
            raise MscliError(Code.FILE, f"{path} does not have {size:,} bytes", "", {"cause": "corrupt_weights"})

    def abort(self) -> None:
        """Local reads come back by themselves."""


class XetRanges:
    """Ranges from Xet storage through hf_xet, which checks every chunk that it yields."""

    def __init__(self) -> None:
        self._group: _Group | None = None

    def read(self, location: Location, gap: Gap, size: int) -> Iterator[bytes]:
        """The bytes of `gap`. hf_xet raises OSError or RuntimeError for everything: any of it may pass."""
        xet = location.xet
        if xet is None:
            raise ValueError("the location is not in Xet storage")
        try:
            group = self._group = self._group or _open_group(xet)
            yield from group.download_stream(import_module("hf_xet").XetFileInfo(xet.hash, size), gap.start, gap.end)
        except (OSError, RuntimeError, ValueError) as error:
            self._group = None
            raise PassingFault("network_proxy", f"Xet storage fails ({error})") from error

    def abort(self) -> None:
        """Closes the group of streams, which ends them; the next read opens a new one."""
        group, self._group = self._group, None
        if group is not None:
            group.abort()


class HttpRanges:
    """Ranges over plain HTTP, on one connection that is kept as long as the host stays the same."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._connection: http.client.HTTPConnection | None = None
        self._origin = ("", "")

    def read(self, location: Location, gap: Gap, size: int) -> Iterator[bytes]:
        """The bytes of `gap`. A connection that was cut or stalled is closed, so the next read opens a new one."""
        whole = False
        try:
            response = self._answer(location, gap, size)
            yield from _body(response, gap.end - gap.start)
            whole = True
        except HttpFault as fault:
            raise PassingFault("network_proxy", fault.seen) from fault
        except (OSError, http.client.HTTPException, ValueError) as error:  # the last: an address that is none
            cause = "stalled_download" if isinstance(error, TimeoutError) else "network_proxy"
            raise PassingFault(cause, f"{self._origin[1]}: {error or type(error).__name__}") from error
        finally:
            if not whole or not response.isclosed():
                self._close()

    def abort(self) -> None:
        """Shuts the socket down, which ends a blocked receive."""
        current = self._connection
        if current is not None and current.sock is not None:
            try:
                current.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # it is down already

    def _answer(self, location: Location, gap: Gap, size: int) -> http.client.HTTPResponse:
        url, headers = location.url, dict(location.headers)
        for _ in range(MAX_REDIRECTS):
            response = self._request(url, headers, gap)
            target = response.headers.get("Location")
            if response.status not in MOVED or target is None:
                _check_answer(response, gap, size, url)
                return response
            response.read(MOST_BYTES_OF_A_REDIRECT)
            if not response.isclosed():
                self._close()
            if urlsplit(urljoin(url, target)).netloc != urlsplit(url).netloc:
                headers = {}  # the token is for the hub alone
            url = urljoin(url, target)
        raise PassingFault("network_proxy", f"{host_in(url)} redirects in a loop")

    def _request(self, url: str, headers: Mapping[str, str], gap: Gap) -> http.client.HTTPResponse:
        parts = urlsplit(url)
        if self._connection is None or self._origin != (parts.scheme, parts.netloc):
            self._close()
            self._connection, self._origin = connection(parts, self._timeouts.connect_s), (parts.scheme, parts.netloc)
        if self._connection.sock is not None:
            self._connection.sock.settimeout(self._timeouts.connect_s)
        target, proxy_headers = request_target(parts)
        wanted = {"Range": f"bytes={gap.start}-{gap.end - 1}", "Accept-Encoding": "identity"}
        self._connection.request("GET", target, headers={**headers, **proxy_headers, **wanted})
        response = self._connection.getresponse()
        if self._connection.sock is not None:
            self._connection.sock.settimeout(self._timeouts.stall_s)
        return response

    def _close(self) -> None:
        current, self._connection = self._connection, None
        if current is not None:
            current.close()


class _Group(Protocol):
    def download_stream(self, file: object, start: int, end: int) -> Iterator[bytes]: ...

    def abort(self) -> None: ...


def xet_usable() -> bool:
    """hf_xet is installed, is new enough to stream ranges, and HF_HUB_DISABLE_XET does not forbid it."""
    if os.environ.get("HF_HUB_DISABLE_XET", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return False
    try:
        return hasattr(import_module("hf_xet"), "XetDownloadStreamGroup")
    except ImportError:
        return False


@lru_cache(maxsize=1)
def _xet_session() -> Any:
    return import_module("hf_xet").XetSession()


def _open_group(xet: Xet) -> _Group:
    group: _Group = _xet_session().new_download_stream_group(
        token_refresh_url=xet.refresh_url, token_refresh_headers=dict(xet.headers)
    )
    return group


def _body(response: http.client.HTTPResponse, length: int) -> Iterator[bytes]:
    gathered, since_s = bytearray(), time.monotonic()
    while length:
        try:
            data = response.read1(min(BLOCK_BYTES, length))
            if not data:
                raise ConnectionError(f"the connection was cut {length:,} bytes early")
        except (OSError, http.client.HTTPException):
            if gathered:
                yield bytes(gathered)
            raise
        gathered += data
        length -= len(data)
        if len(gathered) >= GATHER_BYTES or not length or time.monotonic() - since_s >= GATHER_S:
            yield bytes(gathered)
            gathered, since_s = bytearray(), time.monotonic()
    if response.length == 0:
        response.read()  # tells http.client that the connection is free again


def _check_answer(response: http.client.HTTPResponse, gap: Gap, size: int, url: str) -> None:
    """Raises the fault that a status or a range stands for which is not what was asked."""
    status, host = response.status, host_in(url)
    if fault := answer_fault(status, response.headers, url):
        raise fault
    if status in (401, 403, 404, 410):  # signed addresses live about an hour
        raise WrongAnswerFault("network_proxy", f"{host} refuses the file (HTTP {status})")
    expected = f"bytes {gap.start}-{gap.end - 1}/{size}"
    whole_file = status == 200 and gap.start == 0 and response.length == size
    if status == 200 and not whole_file:
        raise WrongAnswerFault("network_proxy", f"{host} ignores byte ranges or sends another file (a proxy?)")
    if not whole_file and (status != 206 or response.headers.get("Content-Range") != expected):
        seen = response.headers.get("Content-Range") or f"HTTP {status}"
        raise WrongAnswerFault("corrupt_download", f"{host} sends {seen} instead of {expected}")
