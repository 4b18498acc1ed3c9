"""The endpoints below /v1, over the same models: they know no num_ctx and no options, and pass over what they do not
know."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from answers import Answer, Refused
from native import call_id


class OpenAi:
    """The handler's part for OpenAI's clients."""

    server: Any
    path: str
    _body: dict[str, Any]
    _died: bool
    _name: Callable[[], str]
    _load: Callable[[str], int]
    _kill: Callable[[str, dict[str, Any]], None]
    _say: Callable[[str, int, list[dict[str, Any]]], Answer]
    _blob: Callable[[str], str]
    _paced: Callable[[str, list[Any]], Any]

    def openai_routes(self) -> dict[tuple[str, str], Callable[[], object]]:
        """What is answered, by method and path."""
        one = self.path if self.path.startswith("/v1/models/") else ""
        return {
            ("GET", "/v1/models"): self._models,
            ("GET", one): self._model,
            ("POST", "/v1/chat/completions"): self._openai_chat,
            ("POST", "/v1/completions"): self._completion,
        }

    def _models(self) -> object:
        return {"object": "list", "data": [self._entry(name) for name in self.server.store.names()]}

    def _model(self) -> object:
        asked = self.path.removeprefix("/v1/models/")
        if (known := self.server.store.spelling(asked)) is None:
            raise Refused(404, f"model '{asked}' not found")
        return self._entry(known)

    def _entry(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": 0, "owned_by": name.rpartition("/")[0] or "library"}

    def _completion(self) -> object:
        name = self._name()
        self._body.pop("options", None)
        said = self._say(name, self._load(name), [{"role": "user", "content": str(self._body.get("prompt") or "")}])
        choice = {"text": said.text, "index": 0, "finish_reason": said.reason}
        base = {"id": "cmpl-1", "object": "text_completion", "created": 0, "model": self._body["model"]}
        return {**base, "system_fingerprint": "fp_ollama", "choices": [choice], "usage": _usage(said)}

    def _openai_chat(self) -> object:
        name = self._name()
        for ignored in ("options", "think", "keep_alive", "truncate"):
            self._body.pop(ignored, None)
        if not self._body.get("messages"):
            raise Refused(400, "[] is too short - 'messages'")
        said = self._say(name, self._load(name), [_native(message) for message in self._body["messages"]])
        calls = [
            {"id": call_id(), "index": index, "type": "function",
             "function": {"name": call, "arguments": json.dumps(arguments, separators=(",", ":"))}}
            for index, (call, arguments) in enumerate(said.calls)
        ]  # fmt: skip
        words = {"content": said.text, "reasoning": said.thinking, "tool_calls": calls}
        message = {"role": "assistant", **{key: value for key, value in words.items() if value or key == "content"}}
        reason = "tool_calls" if calls else said.reason
        base = {"id": "chatcmpl-1", "created": 0, "model": self._body["model"], "system_fingerprint": "fp_ollama"}
        if not self._body.get("stream"):
            choice = {"index": 0, "message": message, "finish_reason": reason}
            return {**base, "object": "chat.completion", "choices": [choice], "usage": _usage(said)}
        deltas = [{**message, "content": ""}, *({"content": piece} for piece in said.pieces)]
        return self._paced(name, self._chunks(name, {**base, "object": "chat.completion.chunk"}, deltas, reason, said))

    def _chunks(
        self, name: str, chunk: dict[str, Any], deltas: list[dict[str, Any]], reason: str, said: Answer
    ) -> list[dict[str, Any]]:
        """The events of a reply. Where the process that holds the model dies, they end as if it were whole."""
        parts = [{**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
        if fault := self.server.scene.fault("chat"):
            self._died = True
            self._kill(name, fault)
            last = {**chunk, "model": "", "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": None}]}
            return [*parts[: fault["after"]], last]
        parts.append({**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
        if (self._body.get("stream_options") or {}).get("include_usage"):
            parts.append({**chunk, "choices": [], "usage": _usage(said)})
        return parts


def _usage(said: Answer) -> dict[str, int]:
    count = len(said.pieces)
    tokens = said.prompt_tokens
    return {"prompt_tokens": tokens, "completion_tokens": count, "total_tokens": tokens + count}


def _native(message: dict[str, Any]) -> dict[str, Any]:
    """A message of OpenAI's form as the native API has it: text, and images as bare base64."""
    content = message.get("content", "")
    if content is None and not message.get("tool_calls"):
        raise Refused(400, "invalid message content type: <nil>")
    if isinstance(content, str) or content is None:
        return {**message, "content": content or ""}
    urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    for url in urls:
        if url.startswith("http"):
            raise Refused(400, "image URLs are not currently supported, please use base64 encoded data instead")
        if not re.match(r"data:image/(?:png|jpe?g|webp);base64,", url):
            raise Refused(400, "invalid image input")
    text = " ".join(part["text"] for part in content if part["type"] == "text")
    return {**message, "content": text, "images": [url.partition("base64,")[2] for url in urls]}
