"""A registry of Ollama models on loopback, from which a real server pulls: one small model, served as by
ollama.com, with a redirect of each blob to another host name."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_LAYERS = {"application/vnd.ollama.image.model": b"x" * 20_000, "application/vnd.ollama.image.license": b"free" * 200}
_CONFIG = b'{"model_format":"gguf","model_family":"llama","architecture":"amd64","os":"linux"}'
_KIND = "application/vnd.docker.distribution.manifest.v2+json"


def _entry(kind: str, content: bytes) -> dict[str, object]:
    return {"mediaType": kind, "digest": f"sha256:{hashlib.sha256(content).hexdigest()}", "size": len(content)}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        blobs = {str(_entry("", content)["digest"]): content for content in (*_LAYERS.values(), _CONFIG)}
        config = _entry("application/vnd.docker.container.image.v1+json", _CONFIG)
        layers = [_entry(kind, content) for kind, content in _LAYERS.items()]
        manifest = json.dumps({"schemaVersion": 2, "mediaType": _KIND, "config": config, "layers": layers}).encode()
        digest = self.path.rpartition("/")[2]
        if self.path == "/v2/library/small/manifests/q8":
            self._send(200, manifest)
        elif digest not in blobs:
            self._send(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
        elif self.path.startswith("/part/"):
            first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
            self._send(206, blobs[digest][int(first) : int(last or len(blobs[digest])) + 1])
        elif self.command == "HEAD":
            self._send(200, blobs[digest])
        else:
            port = self.server.server_address[1]
            self._send(307, b"", Location=f"http://localhost:{port}/part/{digest}")

    def _send(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is logged."""


@contextmanager
def registry() -> Iterator[str]:
    """Its host and port, as a model's name begins with them; it has `library/small:q8` and nothing else."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
