"""Ollama's own API below /api."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import select
import socket
import string
import time
from collections.abc import Callable, Iterator
from typing import Any

from answers import Answer, Asked, Refused, answer
from log import log
from memory import Bad, Left
from store import MODEL, SYSTEM, full_name, now, published, short_name

TICK_S = 0.02
# What is here before the first tick.
SMALL_BYTES = 100_000
# What a model's context can be at most.
LONGEST = 131072
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_DIGEST = re.compile(r"sha256[:-][0-9a-f]{64}")
_TYPES = {"num_ctx": "integer", "num_predict": "integer", "stop": "array", "temperature": "float32", "top_p": "float32"}


class Cut(Exception):
    """The connection is to break here."""


class Native:
    """The handler's part for Ollama's own API."""

    server: Any
    path: str
    _body: dict[str, Any]
    _content: bytes
    connection: socket.socket

    def native_routes(self) -> dict[tuple[str, str], Callable[[], object]]:
        """What is answered, by method and path."""
        blob = self.path if self.path.startswith("/api/blobs/") else ""
        return {
            ("GET", "/"): lambda: b"Ollama is running",
            ("GET", "/api/version"): lambda: {"version": self.server.scene["version"]},
            ("GET", "/api/tags"): lambda: {"models": [self._listed(name) for name in self.server.store.names()]},
            ("GET", "/api/ps"): self._ps,
            ("GET", "/api/status"): self._status,
            ("POST", "/api/show"): self._show,
            ("POST", "/api/pull"): lambda: self._pulling(self._body["model"], self.server.scene.fault("pull") or {}),
            ("POST", "/api/create"): self._create,
            ("POST", "/api/copy"): self._copy,
            ("POST", "/api/generate"): self._generate,
            ("POST", "/api/chat"): self._chat,
            ("POST", "/api/embed"): self._embed,
            ("DELETE", "/api/delete"): self._delete,
            ("POST", blob): self._take_blob,
            ("HEAD", blob): self._has_blob,
        }

    def _status(self) -> dict[str, Any]:
        return {"cloud": {"disabled": bool(os.environ.get("OLLAMA_NO_CLOUD")), "source": "env"}}

    def _embed(self) -> object:
        raise Refused(501, "This server does not support embeddings. Start it with `--embeddings`")

    def _has_blob(self) -> int:
        digest = self.path.rpartition("/")[2]
        return (200 if self.server.store.blob(digest).exists() else 404) if _DIGEST.fullmatch(digest) else 400

    def _take_blob(self) -> int:
        """Kept under its own digest, whatever it was called."""
        digest, own = self.path.rpartition("/")[2], f"sha256:{hashlib.sha256(self._content).hexdigest()}"
        if self.server.store.blob(digest).exists():
            return 200
        self.server.store.blob(own).write_bytes(self._content)
        if digest != own:
            raise Refused(400, f'digest mismatch, expected "{digest}", got "{own}"')
        return 201

    def _name(self) -> str:
        """The model that the request names, which must be there."""
        name = self._body.get("model") or self._body.get("name") or ""
        if not name:
            raise Refused(400, "model is required")
        _check(name)
        known = self.server.store.spelling(name)
        if known is None:
            raise Refused(404, f"model '{short_name(full_name(name)) if self.path == '/api/show' else name}' not found")
        return str(known)

    def _blob(self, name: str) -> str:
        """The weights of a model, which is what memory is keyed by."""
        return str(next(layer for layer in self.server.store.layers(name) if layer["mediaType"] == MODEL)["digest"])

    def _listed(self, name: str) -> dict[str, Any]:
        layers = self.server.store.layers(name)
        digest = hashlib.sha256(json.dumps(layers).encode()).hexdigest()
        size = sum(layer["size"] for layer in layers)
        details = {"format": "gguf", "family": "mistral3", "parameter_size": "24.0B", "quantization_level": "Q4_K_M"}
        told = {"name": name, "model": name, "modified_at": now(), "size": size, "digest": digest, "details": details}
        if "tags.capabilities" in self.server.scene["lacks"]:
            return told
        try:
            return {**told, "capabilities": self.server.store.capabilities(name)}
        except ValueError:  # its configuration is damaged
            return told

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
        info = {"general.architecture": "mistral3", "mistral3.context_length": LONGEST}
        rest = {"details": self._listed(name)["details"], "model_info": info, "capabilities": store.capabilities(name)}
        system = store.text(name, SYSTEM)
        return {**shown, **({"system": system} if system else {}), **rest}

    def _delete(self) -> None:
        """The model stays in memory, and can no longer be named."""
        self.server.store.delete(self._name())

    def _copy(self) -> None:
        source, store = self._body.get("source", ""), self.server.store
        known = store.spelling(source)
        if known is None:
            raise Refused(404, f'model "{source}" not found')
        store.copy(known, self._body["destination"])

    def _create(self) -> object:
        store, body = self.server.store, self._body
        _check(body.get("model") or "")
        streamed = body.get("stream") is not False
        if body.get("files"):
            store.import_files(body["model"], [*body["files"].values()], body.get("template") or "")
            if body.get("parameters"):
                store.create(body["model"], body["model"], body["parameters"], "")
            return {"status": "success"}
        if not body.get("from"):
            old = "from" in self.server.scene["lacks"]
            raise Refused(400, "path or Modelfile are required" if old else "neither 'from' or 'files' was specified")
        source = store.spelling(body["from"])
        if source is None:
            missing = "pull model manifest: file does not exist"
            if not streamed:
                raise Refused(500, missing)
            return (part for part in ({"status": "pulling manifest"}, {"error": missing}))
        before = [layer["digest"] for layer in store.layers(source)]
        told = body.get("parameters") or {}, body.get("system") or "", body.get("template")
        try:
            store.create(body["model"], source, *told)
        except PermissionError as fault:  # the blob of another user, whose time it sets
            raise Refused(500, f"chtimes {fault.filename}: operation not permitted") from fault
        layers = [layer["digest"] for layer in store.layers(body["model"])]
        kept = [f"using existing layer {digest}" for digest in layers if digest in before]
        made = [f"creating new layer {digest}" for digest in layers if digest not in before]
        said = [{"status": status} for status in (*kept, *made, "writing manifest", "success")]
        return (part for part in said) if streamed else said[-1]

    def _pulling(self, name: str, fault: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """A registry that refuses is told by a line: the answer is 200 whatever happens."""
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
        """Progress every tick, as long as the client listens: none of a small blob, and no last one. The fault's
        `after` counts the bytes of this blob."""
        kind, after = fault.get("kind"), fault.get("after", 0)
        if kind in ("stall", "cut", "error"):
            download.stalled_at, download.again_s = after, fault.get("again_s")
        if told["total"] > SMALL_BYTES:
            yield {**told, "completed": download.completed} if download.completed else told
        with download.waited_for():
            while not download.done.wait(TICK_S):
                completed = download.completed
                if completed < told["total"]:  # the last line of a blob is never one at 100 %
                    yield {**told, "completed": completed} if completed else told
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
            self.server.memory.load(name, self._blob(name), context, self._body.get("keep_alive"), self._gone)
        except Left as left:
            raise Refused(499, "the client has gone") from left
        except Bad as bad:
            raise Refused(400, str(bad)) from bad
        return context

    def _gone(self) -> bool:
        """Whether the client has closed its connection."""
        if not select.select([self.connection], [], [], 0)[0]:
            return False
        return not self.connection.recv(1, socket.MSG_PEEK)

    def _generate(self) -> object:
        name = self._name()
        prompt, ended = self._body.get("prompt") or "", {**self._frame(), "response": "", "done": True}
        if not prompt and self._body.get("keep_alive") in (0, "0"):
            self.server.memory.unload(self._blob(name))
            return {**ended, "done_reason": "unload"}
        context = self._load(name)
        if not prompt:
            return {**ended, "done_reason": "load"}
        said = self._say(name, context, [{"role": "user", "content": prompt, "images": self._body.get("images")}])
        last = {**ended, **_counts(said), "context": [1, 2, 3]}
        if self._body.get("stream") is False:
            return {**last, "response": said.text, "thinking": said.thinking}
        pieces = [{**self._frame(), "response": piece, "done": False} for piece in said.pieces]
        return self._paced(name, [*pieces, last])

    def _chat(self) -> object:
        name = self._name()
        messages, ended = self._body.get("messages") or [], {**self._frame(), "done": True}
        empty = {"role": "assistant", "content": ""}
        if not messages and self._body.get("keep_alive") in (0, "0"):
            self.server.memory.unload(self._blob(name))
            return {**ended, "message": empty, "done_reason": "unload"}
        context = self._load(name)
        if not messages:
            return {**ended, "message": empty, "done_reason": "load"}
        said = self._say(name, context, messages)
        calls = [
            {"id": call_id(), "function": {"index": index, "name": call, "arguments": arguments}}
            for index, (call, arguments) in enumerate(said.calls)
        ]
        whole = {"role": "assistant", "content": said.text, "thinking": said.thinking, "tool_calls": calls}
        whole = {key: value for key, value in whole.items() if value or key in ("role", "content")}
        last = {**ended, **_counts(said), "message": empty}
        if self._body.get("stream") is False:
            return {**last, "message": whole}
        part = {**self._frame(), "done": False}
        first = [{**part, "message": {**whole, "content": ""}}] if calls or said.thinking else []
        rest = [{**part, "message": {"role": "assistant", "content": piece}} for piece in said.pieces]
        if fault := self.server.scene.fault("chat"):
            self._kill(name, fault)
            words = "an error was encountered while running the model: unexpected EOF"
            return self._paced(name, [*[*first, *rest][: fault["after"]], {"error": words}])
        return self._paced(name, [*first, *rest, last])

    def _kill(self, name: str, fault: dict[str, Any]) -> None:
        """End the process that holds the model, with what the scene has it log."""
        self.server.memory.kill(self._blob(name))
        if fault.get("log"):
            log(None, "", fault["log"])

    def _frame(self) -> dict[str, Any]:
        """The model as it was asked for, and the time."""
        return {"model": self._body.get("model") or self._body.get("name"), "created_at": now()}

    def _paced(self, name: str, parts: list[Any]) -> Iterator[Any]:
        """The parts as the scene wants them: the model cannot be put out of memory before the last."""
        with self.server.memory.used(self._blob(name)):
            for part in parts:
                yield part
                begun_s = time.monotonic()
                while time.monotonic() - begun_s < self.server.scene["token_s"]:
                    time.sleep(TICK_S)

    def _say(self, name: str, context: int, messages: list[dict[str, Any]]) -> Answer:
        """The reply to a conversation; the model's own system prompt goes first, unless the first message is one."""
        body, store = self._body, self.server.store
        options = body.get("options") or {}
        parameters, openai = {**store.parameters(name), **options}, self.path.startswith("/v1")
        if store.own_template(name):  # its library's have a branch for each of these, and leave out what has none
            messages = [each for each in messages if each["role"] in ("system", "user", "assistant", "tool")]
        system = store.text(name, SYSTEM)
        if system and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": system}, *messages]
        # OpenAI's endpoint sends 1.0 where the client sends none, whatever the model has.
        heat = body.get("temperature", 1.0) if openai else parameters.get("temperature", 0.8)
        log(None, "", f"\ttop_k = 40, top_p = {body.get('top_p', 1.0):.3f}, min_p = 0.000, temp = {float(heat):.3f}")
        most = (body.get("max_tokens") or 0) if openai else 0
        most = int(most if most > 0 else parameters.get("num_predict") or 0)
        stop = body.get("stop") or parameters.get("stop") or ()
        return answer(
            Asked(
                short_name(full_name(name)), store.capabilities(name), store.own_template(name), context, messages,
                body.get("tools"), body.get("think"), body.get("truncate") is not False, most if most > 0 else None,
                (stop,) if isinstance(stop, str) else tuple(stop),
            )
        )  # fmt: skip


def call_id() -> str:
    """The name of one tool call."""
    return "call_" + "".join(random.choices(string.ascii_lowercase + string.digits, k=8))


def _check(name: str) -> None:
    if not all(_PART.fullmatch(part) for part in name.replace(":", "/").split("/")):
        raise Refused(400, "invalid model name")


def _counts(said: Answer) -> dict[str, Any]:
    durations = {"total_duration": 5974303, "load_duration": 2683953}
    prompt = {"prompt_eval_count": said.prompt_tokens, "prompt_eval_duration": 517000}
    return {"done_reason": said.reason, **durations, **prompt, "eval_count": len(said.pieces), "eval_duration": 870000}


def _wrong_type(option: str, value: Any) -> str | None:
    """The type that a parameter must have, where it has another: found out at the load, not when the model is made."""
    kind = _TYPES.get(option)
    fits = isinstance(value, list) if kind == "array" else isinstance(value, (int, float))
    return None if kind is None or fits else kind
