"""A server of release files on loopback, and a listener that keeps what an installation says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module

import pytest

from mscli.weights.progress import Note, Progress


def zstd_packed(plain: bytes) -> bytes:
    """`plain` as a .zst file holds it."""
    try:
        zstd = import_module("compression.zstd")
    except ImportError:
        zstd = import_module("backports.zstd")
    return bytes(zstd.compress(plain))


@dataclass
class Heard:
    """A listener that keeps what it hears."""

    progresses: list[Progress] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    def progress(self, progress: Progress) -> None:
        self.progresses.append(progress)

    def note(self, note: Note) -> None:
        self.notes.append(note)


@dataclass
class Releases:
    """The release files by path, and how often to break off after how many bytes."""

    files: dict[str, bytes]
    url: str = ""
    breaks: list[int] = field(default_factory=list)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    proxied: bool = False


@pytest.fixture
def serve() -> Iterator[Callable[[dict[str, bytes]], Releases]]:
    """A function: files by path -> a server on loopback that knows byte ranges and can break off."""
    running: list[ThreadingHTTPServer] = []

    def run(files: dict[str, bytes]) -> Releases:
        told = Releases(files)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.replace("http://releases.test", "")
                told.proxied |= path != self.path
                told.asked.append((path, self.headers.get("Range")))
                content = told.files.get(path)
                if content is None:
                    self.send_error(404)
                    return
                start = int((self.headers.get("Range") or "bytes=0-").split("=")[1].rstrip("-"))
                if start >= len(content):
                    self.send_error(416)
                    return
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(content) - start))
                self.end_headers()
                end = told.breaks.pop(0) if told.breaks and path.endswith((".zst", ".gz")) else len(content)
                self.wfile.write(content[start:end])

            def log_message(self, format: str, *args: object) -> None:
                """Nobody reads it."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        running.append(server)
        told.url = f"http://127.0.0.1:{server.server_port}"
        return told

    yield run
    for server in running:
        server.shutdown()
        server.server_close()
