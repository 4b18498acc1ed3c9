"""/v1/responses and /v1/messages as a real 0.33.0 streams them, for what `mscli check --for agents` asks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from answers import Answer
from native import call_id
from openai import OpenAi


class AgentApis(OpenAi):
    """The handler's part for clients of these two. Their streams have named events and no [DONE]."""

    def agent_routes(self) -> dict[tuple[str, str], Callable[[], object]]:
        """What is answered, by method and path."""
        return {("POST", "/v1/responses"): self._responses, ("POST", "/v1/messages"): self._messages}

    def _responses(self) -> object:
        name = self._name()
        self._body["max_tokens"] = self._body.get("max_output_tokens")
        said = self._say(name, self._load(name), [_turn(item) for item in self._body["input"]])
        usage = {"input_tokens": said.prompt_tokens, "output_tokens": len(said.pieces)}
        item = {"id": "fc_1", "type": "function_call", "call_id": call_id(), **_called(said)} if said.calls else {
            "id": "msg_1", "type": "message", "role": "assistant",
            "content": [{"type": "output_text", "text": said.text}],
        }  # fmt: skip
        whole = {"id": "resp_1", "object": "response", "model": self._body["model"], "output": [item], "usage": usage}
        if not self._body.get("stream"):
            return {**whole, "status": "completed"}
        pieces = [] if said.calls else said.pieces
        events: list[dict[str, Any]] = [
            {"type": "response.created", "response": {**whole, "output": [], "usage": None}},
            {"type": "response.output_item.added", "output_index": 0, "item": item},
            *({"type": "response.output_text.delta", "item_id": "msg_1", "delta": piece} for piece in pieces),
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            {"type": "response.completed", "response": whole},
        ]
        return self._paced(name, events)

    def _messages(self) -> object:
        name = self._name()
        turns = [_turn({"role": "system", "content": self._body.get("system") or ""}), *self._body["messages"]]
        said = self._say(name, self._load(name), [_turn(turn) for turn in turns if turn["content"]])
        called = _called(said) if said.calls else {}
        block = {"type": "tool_use", "id": call_id(), "name": called["name"]} if called else {"type": "text"}
        arguments = json.loads(called.get("arguments", "{}"))
        usage = {"input_tokens": said.prompt_tokens, "output_tokens": len(said.pieces)}
        whole = {"id": "msg_1", "type": "message", "role": "assistant", "model": self._body["model"], "usage": usage}
        if not self._body.get("stream"):
            content = {**block, "input": arguments} if called else {**block, "text": said.text}
            return {**whole, "content": [content], "stop_reason": "tool_use" if called else "end_turn"}
        opened = {**block, "input": {}} if called else {**block, "text": ""}
        texts = [{"type": "text_delta", "text": piece} for piece in said.pieces]
        deltas = [{"type": "input_json_delta", "partial_json": called["arguments"]}] if called else texts
        events: list[dict[str, Any]] = [
            {"type": "message_start", "message": {**whole, "content": []}},
            {"type": "content_block_start", "index": 0, "content_block": opened},
            *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "tool_use" if called else "end_turn"}, "usage": usage},
            {"type": "message_stop"},
        ]
        return self._paced(name, events)


def _called(said: Answer) -> dict[str, str]:
    call, arguments = said.calls[0]
    return {"name": call, "arguments": json.dumps(arguments, separators=(",", ":"))}


def _turn(item: dict[str, Any]) -> dict[str, Any]:
    """A message of either API as the native one has it."""
    content = item.get("content") or ""
    text = content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)
    result = isinstance(content, list) and any(part.get("type") == "tool_result" for part in content)
    return {"role": "tool" if result else item.get("role", "tool"), "content": text}
