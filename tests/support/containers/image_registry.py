"""A registry of images on this machine: what `docker pull 127.0.0.1:PORT/NAME:TAG` asks, from layers made here.

`held`: an event that must be set before a layer's second half is sent.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
PIECE, PACE_S = 1_000_000, 0.08
_PACE = threading.Event()
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layer(name: str, content: bytes) -> bytes:
    """A layer with one file, as a tar."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return made.getvalue()


class Registry(ThreadingHTTPServer):
    """Serves one image under every name. Use as a context manager."""

    daemon_threads = True

    def __init__(self, layers: list[bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        packed = [gzip.compress(data, 0) for data in layers]
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [digest(data) for data in layers]},
            }
        ).encode()
        self.blobs = {digest(data): data for data in [config, *packed]}
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "size": len(config), "digest": digest(config)},
            "layers": [{"mediaType": LAYER, "size": len(data), "digest": digest(data)} for data in packed],
        }
        self.manifest = json.dumps(manifest).encode()
        self.size = sum(map(len, packed))
        self.held = threading.Event()
        self.held.set()
        self.asked: list[str] = []
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)

    @property
    def image(self) -> str:
        """What to pull."""
        return f"127.0.0.1:{self.server_address[1]}/tests/image:v0.32.0"

    def __enter__(self) -> Registry:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.held.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Registry
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        kind, _, name = self.path.rpartition("/")
        if self.path == "/v2/":
            return self._send(b"{}", "application/json", body)
        if kind.endswith("/manifests"):
            return self._send(self.server.manifest, MANIFEST, body)
        self.server.asked.append(name)
        return self._send(self.server.blobs[name], "application/octet-stream", body)

    def _send(self, data: bytes, kind: str, body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Docker-Content-Digest", digest(data))
        self.end_headers()
        if not body:
            return
        half = len(data) // 2
        for at in range(0, half, PIECE):  # docker tells of what arrives ten times a second, not of all that arrived
            self.wfile.write(data[at : min(at + PIECE, half)])
            _PACE.wait(PACE_S if len(data) > PIECE else 0)
        if len(data) > PIECE:
            self.server.held.wait(60)
        with contextlib.suppress(ConnectionError):
            self.wfile.write(data[half:])

    def log_message(self, *_: Any) -> None:
        pass
