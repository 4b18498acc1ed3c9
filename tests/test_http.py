"""HTTP against servers that drip, flood, redirect in circles or speak something else: every request ends."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mscli.http import HttpFault, Limits, opened, request
from mscli.untrusted import parse_json

QUICK = Limits(connect_s=2.0, stall_s=0.5, total_s=1.5, body_bytes=100_000, redirects=5)
OK = b"HTTP/1.1 200 OK\r\n"
Script = Callable[[socket.socket, bytes], object]


class Peer:
    """A server on loopback that answers every request by a script, and keeps what it was asked."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.asked: list[bytes] = []
        self._stop = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stop.is_set():
            with suppress(OSError):
                peer, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=(peer,), daemon=True).start()

    def _answer(self, peer: socket.socket) -> None:
        with peer, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head and (more := peer.recv(4096)):
                head += more
            self.asked.append(head)
            self._script(peer, head)

    def drip(self, peer: socket.socket, data: bytes, pause_s: float = 0.05) -> None:
        """A byte at a time, until the client or the test ends it."""
        for place in range(len(data)):
            if self._stop.wait(pause_s):
                return
            peer.sendall(data[place : place + 1])

    def flood(self, peer: socket.socket, block: bytes) -> None:
        """The same again and again, until the client or the test ends it."""
        while not self._stop.is_set():
            peer.sendall(block)

    def close(self) -> None:
        self._stop.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Script], Peer]]:
    """A function: script -> server. No proxy of this machine counts."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    running: list[Peer] = []

    def run(script: Script) -> Peer:
        running.append(Peer(script))
        return running[-1]

    yield run
    for one in running:
        one.close()


def fault(url: str, limits: Limits = QUICK) -> HttpFault:
    """What a request ends with; fails when it takes much longer than its limits."""
    begun_s = time.monotonic()
    with pytest.raises(HttpFault) as raised:
        request(url, limits=limits)
    assert time.monotonic() - begun_s < 20
    assert "\n" not in raised.value.seen
    return raised.value


def answering(data: bytes) -> Script:
    return lambda peer, _head: peer.sendall(data)


def test_an_answer_is_read_whole(peer: Callable[[Script], Peer]) -> None:
    found = request(peer(answering(OK + b"Content-Length: 5\r\nX-Y: z\r\n\r\nhello")).url, limits=QUICK)
    assert (found.status, found.headers["x-y"], found.body) == (200, "z", b"hello")
    chunked = peer(answering(OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"))
    assert request(chunked.url, limits=QUICK).body == b"abcde"
    assert request(peer(answering(OK + b"Connection: close\r\n\r\nto the end")).url, limits=QUICK).body == b"to the end"


def test_the_status_is_the_callers_to_judge(peer: Callable[[Script], Peer]) -> None:
    found = request(peer(answering(b"HTTP/1.1 503 Later\r\nContent-Length: 4\r\n\r\nbusy")).url, limits=QUICK)
    assert (found.status, found.body) == (503, b"busy")


def test_head_has_no_body(peer: Callable[[Script], Peer]) -> None:
    server = peer(answering(OK + b"Content-Length: 999999999\r\n\r\n"))
    assert request(server.url, method="HEAD", limits=QUICK).headers["Content-Length"] == "999999999"


@pytest.mark.parametrize("part", ["status", "headers", "body", "chunks"])
def test_a_byte_now_and_then_does_not_hold_a_request_for_ever(peer: Callable[[Script], Peer], part: str) -> None:
    before = {
        "status": b"",
        "headers": OK,
        "body": OK + b"Content-Length: 90000\r\n\r\n",
        "chunks": OK + b"Transfer-Encoding: chunked\r\n\r\nffff\r\n",
    }[part]
    server = peer(lambda peer, _head: (peer.sendall(before), server.drip(peer, b"a" * 90_000)))
    begun_s = time.monotonic()
    assert fault(server.url).kind == "silent"
    assert time.monotonic() - begun_s >= 1.2, "it gave up before its time"


def test_silence_ends_before_the_deadline(peer: Callable[[Script], Peer]) -> None:
    held = threading.Event()
    server = peer(lambda _peer, _head: held.wait(10))
    begun_s = time.monotonic()
    found = fault(server.url, replace(QUICK, total_s=60.0))
    held.set()
    assert found.kind == "silent"
    assert time.monotonic() - begun_s < 10


def test_a_download_may_take_its_time_as_long_as_bytes_come(peer: Callable[[Script], Peer]) -> None:
    server = peer(lambda peer, _head: (peer.sendall(OK + b"\r\n"), server.drip(peer, b"a" * 60, 0.05)))
    with opened(server.url, limits=replace(QUICK, total_s=None)) as answer:
        assert b"".join(answer.blocks()) == b"a" * 60


@pytest.mark.parametrize(
    "head", [b"\r\n", b"Transfer-Encoding: chunked\r\n\r\n", b"Content-Length: 99999999999\r\n\r\n"]
)
def test_a_flood_ends_at_the_limit(peer: Callable[[Script], Peer], head: bytes) -> None:
    block = b"8000\r\n" + b"a" * 0x8000 + b"\r\n" if b"chunked" in head else b"a" * 0x8000
    server = peer(lambda peer, _head: (peer.sendall(OK + head), server.flood(peer, block)))
    found = fault(server.url)
    assert found.kind == "strange"
    assert "100,000 bytes" in found.seen


@pytest.mark.parametrize("block", [b"a" * 4096, b"X-Y: z\r\n"], ids=["one endless line", "endless lines"])
def test_endless_headers_end(peer: Callable[[Script], Peer], block: bytes) -> None:
    server = peer(lambda peer, _head: (peer.sendall(OK), server.flood(peer, block)))
    assert fault(server.url).kind == "strange"


def test_a_packed_body_is_not_unpacked(peer: Callable[[Script], Peer]) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    server = peer(answering(OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb))
    assert len(request(server.url, limits=QUICK).body) == len(bomb)
    assert b"Accept-Encoding: identity" in server.asked[0]


def test_a_body_that_ends_early_is_a_fault(peer: Callable[[Script], Peer]) -> None:
    assert fault(peer(answering(OK + b"Content-Length: 10\r\n\r\nabc")).url).kind == "cut"
    assert fault(peer(answering(OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\nabc")).url).kind == "cut"


@pytest.mark.parametrize(
    "words", [b"SSH-2.0-OpenSSH_9.6\r\n", b"\x16\x03\x01\x02", b"\0" * 300, b"HTTP/1.1 abc\r\n\r\n", b""]
)
def test_what_is_no_http_is_said_so(peer: Callable[[Script], Peer], words: bytes) -> None:
    assert fault(peer(answering(words)).url).kind in ("strange", "cut")


def test_a_circle_of_redirects_ends(peer: Callable[[Script], Peer]) -> None:
    server = peer(answering(b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n"))
    assert "loop" in fault(server.url).seen
    assert len(server.asked) == 6


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://", "http://[::", "//"])
def test_a_redirect_out_of_http_is_refused(peer: Callable[[Script], Peer], target: str) -> None:
    server = peer(answering(f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode()))
    assert fault(server.url).kind == "strange"


def test_a_token_does_not_follow_to_another_host(peer: Callable[[Script], Peer]) -> None:
    other = peer(answering(OK + b"Content-Length: 2\r\n\r\nok"))
    first = peer(answering(f"HTTP/1.1 302 Found\r\nLocation: {other.url}/x\r\nContent-Length: 0\r\n\r\n".encode()))
    found = request(first.url, headers={"Authorization": "Bearer hf_secret"}, limits=QUICK)
    assert (found.body, found.url) == (b"ok", f"{other.url}/x")
    assert b"hf_secret" in first.asked[0]
    assert b"hf_secret" not in other.asked[0]


def test_nobody_there_is_named(peer: Callable[[Script], Peer]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert fault(f"http://127.0.0.1:{port}/").kind == "refused"
    assert fault("http://nowhere.invalid/").kind == "dns"
    assert fault("gopher://127.0.0.1/").kind == "strange"


def test_a_proxy_that_mscli_cannot_use_is_named(
    peer: Callable[[Script], Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = peer(answering(OK + b"Content-Length: 2\r\n\r\nok"))
    monkeypatch.setenv("http_proxy", "socks5h://me:secret@127.0.0.1:1080")
    found = fault(server.url)
    assert found.kind == "proxy"
    assert "secret" not in found.seen
    assert request(server.url, limits=QUICK, direct=True).body == b"ok"


@pytest.mark.parametrize("text", [b"[" * 200_000, b'{"a":' * 100_000, b"1" * 5000, b"\xff", b"", b"{]"])
def test_json_that_is_none_or_endless_is_one_kind_of_error(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # json's own words differ by version
        parse_json(text)


PARTS = (
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 302 Found\r\n",
    b"HTTP/1.1 999 ?\r\n",
    b"HTTP/9",
    b"ICY 200 OK\r\n",
    b"\r\n",
    b"\r\n\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: -1\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Content-Length: x\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Encoding: gzip\r\n",
    b"Location: /\r\n",
    b"Location: \xff://\r\n",
    b"Location: file:///etc/passwd\r\n",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"-1\r\n",
    b"fffffffff\r\n",
    b"hello",
    gzip.compress(b"x" * 10**5),
    b"A: " + b"b" * 70_000,
    b"\0",
    b": \r\n",
    b" folded\r\n",
)
ANSWERS = st.lists(st.sampled_from(PARTS) | st.binary(max_size=30), max_size=8).map(b"".join)


@settings(max_examples=40)
@given(answers=st.lists(ANSWERS, min_size=1, max_size=3))
def test_any_answer_is_read_or_is_a_fault_in_words(peer: Callable[[Script], Peer], answers: list[bytes]) -> None:
    left = iter(answers)
    server = peer(lambda peer, _head: peer.sendall(next(left, b"")))
    seen = "nothing"
    try:
        assert len(request(server.url, limits=QUICK).body) <= QUICK.body_bytes
    except HttpFault as fault:
        seen = fault.seen
    server.close()
    assert seen
    assert "\n" not in seen
