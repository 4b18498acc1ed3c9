"""A stand-in for `ollama serve`: Ollama's HTTP API as its documentation has it, real in all but the language model."""

from __future__ import annotations

import base64
import hashlib
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

from answers import Answer, Refused, answer
from log import log
from memory import Bad, Memory
from scene import Scene
from store import MODEL, SYSTEM, Store, folder, full_name, now, published, short_name

TICK_S = 0.02


# What a model's context can be at most.
LONGEST = 131072
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_TYPES = {"num_ctx": "integer", "num_predict": "integer", "stop": "array", "temperature": "float32", "top_p": "float32"}


class Cut(Exception):
    """The connection is to break here."""


class Server(ThreadingHTTPServer):
    """One server: its scene, its models folder, and what is in memory."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, place: tuple[str, int], scene: Scene) -> None:
        self.scene, self.store, self.memory = scene, Store(), Memory(scene)
        self.address_family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
        super().__init__(place, Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no fault."""


class Handler(BaseHTTPRequestHandler):
    """The API. One instance for each connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        routes: dict[str, Callable[[], object]] = {
            "/api/version": lambda: {"version": self.server.scene["version"]},
            "/api/tags": lambda: {"models": [self._listed(name) for name in self.server.store.names()]},
            "/api/ps": self._ps,
            "/v1/models": self._openai_models,
        }
        if self.path == "/":
            self._send(200, b"Ollama is running", "text/plain")
        else:
            self._answer(routes)

    def do_POST(self) -> None:
        if self.path.startswith("/api/blobs/"):
            self._take_blob(self.path.rpartition("/")[2])
            return
        self._answer(
            {
                "/api/show": self._show,
                "/api/pull": self._pull,
                "/api/create": self._create,
                "/api/generate": self._generate,
                "/api/chat": self._chat,
                "/v1/chat/completions": self._openai_chat,
            }
        )

    def do_DELETE(self) -> None:
        self._answer({"/api/delete": self._delete})

    def _answer(self, routes: dict[str, Callable[[], object]]) -> None:
        """Run the route: a value becomes JSON, an iterator a stream of it, a refusal an error."""
        length = int(self.headers.get("Content-Length") or 0)
        self._died = False
        self._body: dict[str, Any] = json.loads(self.rfile.read(length) or b"{}")
        if self._foreign():
            self._send(403, b"", "")
            return
        route = routes.get(self.path)
        try:
            if route is None:
                self._send(404, b"404 page not found", "text/plain")
                return
            if fault := self._status_fault():
                raise Refused(fault["status"], fault.get("text", "made to fail"))
            said = route()
            if said is None:
                self._send(200, b"", "text/plain")
            elif isinstance(said, Iterator):
                self._stream(said)
            else:
                self._send(200, json.dumps(said).encode(), "application/json")
        except Refused as refused:
            kinds = {404: "not_found_error", 400: "invalid_request_error"}
            kind = kinds.get(refused.status, "api_error")
            openai = {"message": str(refused), "type": kind, "param": None, "code": None}
            error = openai if self.path.startswith("/v1") else str(refused)
            self._send(refused.status, json.dumps({"error": error}).encode(), "application/json")

    def _foreign(self) -> bool:
        """A server bound to loopback answers to local names and addresses alone."""
        host = self.headers.get("Host", "")
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        return not (name in ("", "localhost") or name.endswith((".localhost", ".local")) or _is_address(name))

    def _take_blob(self, digest: str) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        fits = digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
        if fits:
            self.server.store.blob(digest).write_bytes(content)
        self._send(201 if fits else 400, b"", "text/plain")

    def _status_fault(self) -> dict[str, Any] | None:
        kinds = {"/api/create": "create", "/api/tags": "tags", "/api/delete": "delete"}
        empty = self.path == "/api/generate" and self._body.get("keep_alive") != 0
        kind = "load" if empty else kinds.get(self.path)
        return self.server.scene.fault(kind) if kind else None

    def _send(self, status: int, content: bytes, media_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, parts: Iterator[Any]) -> None:
        """NDJSON, or server-sent events below /v1. An error in the middle is a last object; Cut breaks off."""
        events = self.path.startswith("/v1")
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream" if events else "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for part in parts:
                line = json.dumps(part)
                self._chunk(f"data: {line}\n\n".encode() if events else f"{line}\n".encode())
            if events and not self._died:
                self._chunk(b"data: [DONE]\n\n")
            self._chunk(b"")
        except (Cut, OSError):
            self.close_connection = True
        finally:
            parts.close()  # type: ignore[attr-defined]

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _name(self) -> str:
        """The model that the request names, which must be there."""
        name = self._body.get("model") or self._body.get("name") or ""
        if not all(_PART.fullmatch(part) for part in name.replace(":", "/").split("/")):
            raise Refused(400, "invalid model name")
        known = self.server.store.spelling(name)
        if known is None:
            raise Refused(404, f"model '{short_name(full_name(name)) if self.path == '/api/show' else name}' not found")
        return known

    def _blob(self, name: str) -> str:
        """The weights of a model, which is what memory is keyed by."""
        return str(next(layer for layer in self.server.store.layers(name) if layer["mediaType"] == MODEL)["digest"])

    def _listed(self, name: str) -> dict[str, Any]:
        layers = self.server.store.layers(name)
        digest = hashlib.sha256(json.dumps(layers).encode()).hexdigest()
        size = sum(layer["size"] for layer in layers)
        details = {"format": "gguf", "family": "mistral3", "parameter_size": "24.0B", "quantization_level": "Q4_K_M"}
        return {"name": name, "model": name, "modified_at": now(), "size": size, "digest": digest, "details": details}

    def _ps(self) -> dict[str, Any]:
        runners = self.server.memory.listed()
        return {
            "models": [
                {"name": runner.name, "model": runner.name, "size": runner.size, "size_vram": runner.size_vram,
                 "expires_at": now(runner.expires_s), "context_length": runner.context}
                for runner in runners
            ]
        }  # fmt: skip

    def _show(self) -> dict[str, Any]:
        name, store = self._name(), self.server.store
        parameters = "\n".join(f"{key:<30} {value}" for key, value in sorted(store.parameters(name).items()))
        blob = store.blob(self._blob(name))
        shown = {"modelfile": f"FROM {blob}\n", "parameters": parameters, "template": "{{ .Prompt }}", "license": ""}
        info = {"general.architecture": "mistral3", "mistral3.context_length": 131072}
        rest = {"details": self._listed(name)["details"], "model_info": info, "capabilities": store.capabilities(name)}
        return {**shown, "system": store.text(name, SYSTEM), **rest}

    def _delete(self) -> None:
        """The model stays in memory, and can no longer be named."""
        self.server.store.delete(self._name())

    def _create(self) -> object:
        if files := self._body.get("files"):
            self.server.store.import_files(self._body["model"], list(files.values()))
            return {"status": "success"}
        source = self._body.get("from", "")
        if self.server.store.manifest(source) is None:
            raise Refused(500, "pull model manifest: file does not exist")
        self.server.store.create(
            self._body["model"], source, self._body.get("parameters") or {}, self._body.get("system") or ""
        )
        said = [{"status": "using existing layer"}, {"status": "writing manifest"}, {"status": "success"}]
        return said[-1] if self._body.get("stream") is False else (part for part in said)

    def _pull(self) -> object:
        fault = self.server.scene.fault("pull") or {}
        if "status" in fault:
            raise Refused(fault["status"], fault.get("text", "made to fail"))
        return self._pulling(self._body["model"], fault)

    def _pulling(self, name: str, fault: dict[str, Any]) -> Iterator[dict[str, Any]]:
        store = self.server.store
        yield {"status": "pulling manifest"}
        if fault.get("kind") == "error" and "after" not in fault:
            yield {"error": fault["text"]}
            return
        layers = published(self.server.scene, name)
        if layers is None:
            yield {"error": "pull model manifest: file does not exist"}
            return
        fresh = []
        for layer, content in layers:
            digest, size = layer["digest"], layer["size"]
            told = {"status": f"pulling {digest[7:19]}", "digest": digest, "total": size}
            if store.blob(digest).exists():
                yield {**told, "completed": size}
                continue
            fresh.append(digest)
            received = bytes(reversed(content)) if fault.get("kind") == "corrupt" else content
            yield from self._downloading(store.download(layer, received, self.server.scene), told, fault)
            yield {**told, "completed": size}
        yield {"status": "verifying sha256 digest"}
        for digest in fresh:
            got = hashlib.sha256(store.blob(digest).read_bytes()).hexdigest()
            if f"sha256:{got}" != digest:
                store.blob(digest).unlink()
                yield {"error": f"digest mismatch, file must be downloaded again: want {digest}, got sha256:{got}"}
                return
        yield {"status": "writing manifest"}
        store.write_manifest(name, [layer for layer, _ in layers])
        yield {"status": "success"}

    def _downloading(self, download: Any, told: dict[str, Any], fault: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Progress every tick, as long as the client listens. The fault's `after` counts the bytes of this blob."""
        kind, after = fault.get("kind"), fault.get("after", 0)
        if kind in ("stall", "cut", "error"):
            download.stalled_at, download.again_s = after, fault.get("again_s")
        yield {**told, "completed": download.completed}
        with download.waited_for():
            while not download.done.wait(TICK_S):
                completed = download.completed
                yield {**told, "completed": completed}
                if kind in ("cut", "error") and completed >= after:
                    if kind == "cut":
                        raise Cut
                    yield {"error": fault["text"]}
                    return

    def _context(self, name: str, options: dict[str, Any]) -> int:
        asked = options.get("num_ctx") or self.server.store.parameters(name).get("num_ctx")
        return int(asked or os.environ.get("OLLAMA_CONTEXT_LENGTH") or 4096)

    def _load(self, name: str) -> int:
        for option, value in self.server.store.parameters(name).items():
            if kind := _wrong_type(option, value):
                raise Refused(500, f'option "{option}" must be of type {kind}')
        context = min(self._context(name, self._body.get("options") or {}), LONGEST)
        try:
            self.server.memory.load(name, self._blob(name), context, self._body.get("keep_alive"))
        except Bad as bad:
            raise Refused(400, str(bad)) from bad
        return context

    def _generate(self) -> object:
        name = self._name()
        prompt, ended = (
            self._body.get("prompt") or "",
            {"model": name, "created_at": now(), "response": "", "done": True},
        )
        if not prompt and self._body.get("keep_alive") in (0, "0"):
            self.server.memory.unload(self._blob(name))
            return {**ended, "done_reason": "unload"}
        context = self._load(name)
        if not prompt:
            return {**ended, "done_reason": "load"}
        said = self._say(name, context, [{"role": "user", "content": prompt, "images": self._body.get("images")}])
        counts = {"prompt_eval_count": said.prompt_tokens, "eval_count": len(said.pieces)}
        last = {**ended, "done_reason": "stop", **counts}
        if self._body.get("stream") is False:
            return {**last, "response": said.text, "thinking": said.thinking}
        pieces = [{"model": name, "response": piece, "done": False} for piece in said.pieces]
        return (part for part in [*pieces, last])

    def _chat(self) -> object:
        name = self._name()
        context = self._load(name)
        ended = {"model": name, "created_at": now(), "done": True, "message": {"role": "assistant", "content": ""}}
        messages = self._body.get("messages") or []
        if not messages:
            return {**ended, "done_reason": "load"}
        said = self._say(name, context, messages)
        calls = [{"function": {"name": call, "arguments": arguments}} for call, arguments in said.calls]
        whole = {"role": "assistant", "content": said.text, "thinking": said.thinking, "tool_calls": calls}
        whole = {key: value for key, value in whole.items() if value or key in ("role", "content")}
        counts = {"prompt_eval_count": said.prompt_tokens, "eval_count": len(said.pieces)}
        last = {**ended, "done_reason": "stop", **counts}
        if self._body.get("stream") is False:
            return {**last, "message": whole}
        part = {"model": name, "created_at": now(), "done": False}
        first = {**part, "message": {**whole, "content": ""}}
        rest = [{**part, "message": {"role": "assistant", "content": piece}} for piece in said.pieces]
        return (item for item in [*([first] if said.thinking or calls else []), *rest, last])

    def _say(self, name: str, context: int, messages: list[dict[str, Any]]) -> Answer:
        """The model's answer; its own system prompt goes first unless the conversation brings one."""
        system = self.server.store.text(name, SYSTEM)
        if system and all(message["role"] != "system" for message in messages):
            messages = [{"role": "system", "content": system}, *messages]
        for message in messages:
            for image in message.get("images") or ():
                base64.b64decode(image, validate=True)
        capabilities = self.server.store.capabilities(name)
        return answer(name, capabilities, context, messages, self._body.get("tools"), self._body.get("think"))

    def _openai_models(self) -> dict[str, Any]:
        models = [{"id": name, "object": "model", "owned_by": "library"} for name in self.server.store.names()]
        return {"object": "list", "data": models}

    def _openai_chat(self) -> object:
        """OpenAI's endpoint over the same models: it knows no num_ctx, whatever `options` says."""
        name = self._name()
        self._body.pop("options", None)
        said = self._say(name, self._load(name), [_native(message) for message in self._body["messages"]])
        calls = [
            {"id": "call_1", "index": 0, "type": "function",
             "function": {"name": call, "arguments": json.dumps(arguments)}}
            for call, arguments in said.calls
        ]  # fmt: skip
        words = {"content": said.text, "reasoning": said.thinking, "tool_calls": calls}
        message = {"role": "assistant", **{key: value for key, value in words.items() if value or key == "content"}}
        count = len(said.pieces)
        usage = {"prompt_tokens": said.prompt_tokens, "completion_tokens": count}
        usage["total_tokens"] = sum(usage.values())
        reason = "tool_calls" if calls else "stop"
        base = {"id": "chatcmpl-1", "created": 0, "model": self._body["model"], "system_fingerprint": "fp_ollama"}
        if not self._body.get("stream"):
            choice = {"index": 0, "message": message, "finish_reason": reason}
            return {**base, "object": "chat.completion", "choices": [choice], "usage": usage}
        deltas = [{**message, "content": ""}, *({"content": piece} for piece in said.pieces)]
        chunk = {**base, "object": "chat.completion.chunk"}
        parts = [{**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
        if fault := self.server.scene.fault("chat"):
            self._died = True
            self.server.memory.kill(self._blob(name))
            last = {**chunk, "model": "", "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": None}]}
            return (part for part in [*parts[: fault["after"]], last])
        parts.append({**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
        if (self._body.get("stream_options") or {}).get("include_usage"):
            parts.append({**chunk, "choices": [], "usage": usage})
        return (part for part in parts)

    def log_message(self, format: str, *args: Any) -> None:
        print(f"[GIN] {now()} | {args[1] if len(args) > 1 else '-'} | {args[0]}", file=sys.stderr, flush=True)


def _wrong_type(option: str, value: Any) -> str | None:
    """The type that a parameter must have, where it has another: found out at the load, not when the model is made."""
    kind = _TYPES.get(option)
    fits = isinstance(value, list) if kind == "array" else isinstance(value, (int, float))
    return None if kind is None or fits else kind


def _is_address(name: str) -> bool:
    try:
        return ip_address(name).is_private or ip_address(name).is_loopback or ip_address(name).is_unspecified
    except ValueError:
        return False


def _native(message: dict[str, Any]) -> dict[str, Any]:
    """A message of OpenAI's form as the native API has it: text, and images as bare base64."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return {**message, "content": content}
    urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    text = " ".join(part["text"] for part in content if part["type"] == "text")
    return {**message, "content": text, "images": [url.partition("base64,")[2] for url in urls]}


def serve(scene: Scene) -> None:
    """Until SIGTERM. Ends as Ollama does when the port is taken or the models folder may not be written."""
    host, _, port = (os.environ.get("OLLAMA_HOST") or "127.0.0.1:11434").rpartition(":")
    shown = {name: os.environ.get(name, "") for name in ("OLLAMA_HOST", "OLLAMA_MODELS", "OLLAMA_CONTEXT_LENGTH")}
    log("INFO", "routes.go:1951", "server config", env=f"map[{' '.join(f'{k}:{v}' for k, v in shown.items())}]")
    try:
        server = Server((host.strip("[]"), int(port)), scene)
    except PermissionError as error:
        sys.exit(f"Error: mkdir {error.filename or folder()}: permission denied")
    except OSError:
        sys.exit(f"Error: listen tcp {host}:{port}: bind: address already in use")
    log("INFO", "routes.go:2008", f"Listening on {host}:{server.server_port} (version {scene['version']})")
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever(poll_interval=0.05)
    server.memory.clear()
