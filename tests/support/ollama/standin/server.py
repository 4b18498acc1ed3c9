"""A stand-in for `ollama serve`: Ollama's HTTP API, real in all but the language model. tests/engines/ollama/
test_ollama_standin.py asks it and a real one the same.

Here is what all requests have in common; what is answered is in native.py, openai.py and agent_apis.py.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any

from agent_apis import AgentApis
from answers import Refused
from log import gin, log
from memory import Memory
from native import Cut, Native
from scene import Scene
from store import Store, folder

_METHODS = "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
_ORIGIN = re.compile(r"https?://(?:localhost|127\.0\.0\.1|0\.0\.0\.0)(?::\d+)?|(?:app|file|tauri|vscode-\w+)://.*")


class Server(ThreadingHTTPServer):
    """One server: its scene, its models folder, and what is in memory."""

    daemon_threads = True
    allow_reuse_address = True
    store: Store

    def __init__(self, place: tuple[str, int], scene: Scene) -> None:
        self.scene, self.memory = scene, Memory(scene)
        self.address_family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
        super().__init__(place, Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no fault."""


class Handler(Native, AgentApis, BaseHTTPRequestHandler):
    """The API. One instance for each connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self._request()

    def do_POST(self) -> None:
        self._request()

    def do_DELETE(self) -> None:
        self._request()

    def do_HEAD(self) -> None:
        self._request()

    def do_OPTIONS(self) -> None:
        self._request()

    def _request(self) -> None:
        """Answer what is asked for, unless it comes from somewhere else, or asks for nothing that there is."""
        self._content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._died = False
        if self._foreign():
            self._send(403, b"", "")
        elif self.command == "OPTIONS":
            self._send(204, b"", "", {"Access-Control-Allow-Methods": _METHODS})
        elif self.path.endswith("/") and self.path != "/":
            self._send(301, b"", "text/html", {"Location": self.path.rstrip("/")})
        else:
            self._route()

    def _route(self) -> None:
        lacks = self.server.scene["lacks"]
        known = {**self.native_routes(), **self.openai_routes(), **self.agent_routes()}
        routes = {(method, path): route for (method, path), route in known.items() if path not in lacks}
        route = routes.get((self.command, self.path))
        if route is None and self.command == "HEAD":
            route = routes.get(("GET", self.path))
        others = sorted({method for method, path in routes if path == self.path})
        if route is not None:
            self._answer(route)
        elif others:
            self._send(405, b"405 method not allowed", "text/plain", {"Allow": ", ".join(others)})
        else:
            self._send(404, b"404 page not found", "text/plain")

    def _answer(self, route: Callable[[], object]) -> None:
        """A value becomes JSON, bytes a text, an iterator a stream of it, a refusal an error."""
        try:
            self._body: dict[str, Any] = self._json()
            if fault := self._status_fault():
                raise Refused(fault["status"], fault.get("text", "made to fail"))
            said = route()
        except Refused as refused:
            self._refuse(refused)
            return
        if isinstance(said, int):
            self._send(said, b"", "")
        elif said is None or isinstance(said, bytes):
            self._send(200, said or b"", "text/plain")
        elif isinstance(said, Iterator):
            self._stream(said)
        else:
            self._send(200, json.dumps(_without(said, self.server.scene["lacks"])).encode(), "application/json")

    def _refuse(self, refused: Refused) -> None:
        kinds = {404: "not_found_error", 400: "invalid_request_error"}
        kind = kinds.get(refused.status, "api_error")
        openai = {"message": str(refused), "type": kind, "param": None, "code": None}
        error = openai if self.path.startswith("/v1") else str(refused)
        self._send(refused.status, json.dumps({"error": error}).encode(), "application/json")

    def _json(self) -> dict[str, Any]:
        """The body; what follows its JSON is passed over, as Go's decoder does."""
        if self.command not in ("POST", "DELETE") or self.path.startswith("/api/blobs/"):
            return {}
        text = self._content.decode(errors="replace").lstrip()
        if not text:
            raise Refused(400, "EOF" if self.path.startswith("/v1") else "missing request body")
        try:
            said = json.JSONDecoder().raw_decode(text)[0]
        except ValueError as fault:
            at = getattr(fault, "pos", 0)
            if at >= len(text):
                raise Refused(400, "unexpected EOF") from fault
            place = "object key string" if text[:at].rstrip().endswith(("{", ",")) else "value"
            raise Refused(400, f"invalid character {text[at]!r} looking for beginning of {place}") from fault
        if isinstance(said.get("messages"), str):
            what = "Go struct field ChatRequest.messages of type []api.Message"
            raise Refused(400, f"json: cannot unmarshal string into {what}")
        return dict(said)

    def _foreign(self) -> bool:
        """A server bound to loopback answers to local names and addresses alone, and to local pages."""
        host = self.headers.get("Host", "")
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        local = name in ("", "localhost") or name.endswith((".localhost", ".local")) or _is_address(name)
        origin = self.headers.get("Origin")
        return not local or not (origin is None or _ORIGIN.fullmatch(origin))

    def _status_fault(self) -> dict[str, Any] | None:
        kinds = {"/api/create": "create", "/api/tags": "tags", "/api/delete": "delete"}
        empty = self.path == "/api/generate" and self._body.get("keep_alive") != 0
        kind = "load" if empty else kinds.get(self.path)
        if kind == "create" and not self._body.get("from"):
            return None  # it is only asked how it refuses that
        return self.server.scene.fault(kind) if kind else None

    def _send(self, status: int, content: bytes, media_type: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        if origin := self.headers.get("Origin"):
            headers = {**(headers or {}), "Access-Control-Allow-Origin": origin, "Vary": "Origin"}
        for name, value in {"Content-Type": media_type, **(headers or {})}.items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _stream(self, parts: Iterator[Any]) -> None:
        """NDJSON, or server-sent events below /v1. An error in the middle is a last object; Cut breaks off."""
        events, named = self.path.startswith("/v1"), (self.command, self.path) in self.agent_routes()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream" if events else "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for part in parts:
                line = json.dumps(part)
                event = f"event: {part['type']}\n" if named else ""
                self._chunk(f"{event}data: {line}\n\n".encode() if events else f"{line}\n".encode())
            if events and not named and not self._died:
                self._chunk(b"data: [DONE]\n\n")
            self._chunk(b"")
        except (Cut, OSError):
            self.close_connection = True
        finally:
            parts.close()  # type: ignore[attr-defined]

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Only requests are logged."""

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        gin(int(code), self.command, self.path)


def _without(said: Any, lacks: list[str]) -> Any:
    """An answer without the fields of these names."""
    if isinstance(said, dict):
        return {key: _without(value, lacks) for key, value in said.items() if key not in lacks}
    return [_without(value, lacks) for value in said] if isinstance(said, list) else said


def _is_address(name: str) -> bool:
    try:
        return ip_address(name).is_private or ip_address(name).is_loopback or ip_address(name).is_unspecified
    except ValueError:
        return False


def serve(scene: Scene) -> None:
    """Until SIGTERM. Ends as Ollama does when the port is taken or the models folder may not be written."""
    host, _, port = (os.environ.get("OLLAMA_HOST") or "127.0.0.1:11434").rpartition(":")
    try:
        server = Server((host.strip("[]"), int(port)), scene)
    except OSError:
        sys.exit(f"Error: listen tcp {host}:{port}: bind: address already in use")
    shown = {name: os.environ.get(name, "") for name in ("OLLAMA_HOST", "OLLAMA_MODELS", "OLLAMA_CONTEXT_LENGTH")}
    log("INFO", "routes.go:1951", "server config", env=f"map[{' '.join(f'{k}:{v}' for k, v in shown.items())}]")
    try:
        server.store = Store()
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        why = "permission denied" if isinstance(error, PermissionError) else "not a directory"
        sys.exit(f"Error: mkdir {folder()}: {why}: ensure path elements are traversable")
    log("INFO", "routes.go:2008", f"Listening on {host}:{server.server_port} (version {scene['version']})")
    _discover()
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever(poll_interval=0.05)
    server.memory.clear()


def _discover() -> None:
    """What a server says of the machine before its first answer, and of ollama.com where there is no internet."""
    log("INFO", "runner.go:60", "discovering available GPUs...")
    if not os.environ.get("OLLAMA_NO_CLOUD"):
        fault = 'Get "https://ollama.com:443/api/tags": dial tcp: lookup ollama.com: no such host'
        log("WARN", "model_show_cache.go:142", "model show cloud cache hydration failed", error=fault)
        log("WARN", "model_recommendations.go:168", "model recommendations refresh failed", error=fault)
    library = "cpu" if os.environ.get("CUDA_VISIBLE_DEVICES") == "-1" else "CUDA"
    log("INFO", "types.go:50", "inference compute", id=library, library=library, total="23.5 GiB", available="22.7 GiB")
    log("INFO", "routes.go:2058", "vram-based default context", total_vram="0 B", default_num_ctx=4096)
