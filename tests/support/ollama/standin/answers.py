"""What the stand-in's models say: fixed text, one tool call where tools are given, a thought where one is asked for."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, replace
from typing import Any

from log import log

THOUGHT = "The user wants an answer, so I plan one briefly."
KEEP = 5


class Refused(Exception):
    """An HTTP status and the words that go with it."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


@dataclass(frozen=True)
class Asked:
    """One request as /api/chat takes it: text in `content`, base64 in `images`. `own_template`: the model's is Ollama's
    own, not the one in the weights' file. `most`: tokens of the reply, None for any number; `stop`: what ends it."""

    model: str
    capabilities: list[str]
    own_template: bool
    context: int
    messages: list[dict[str, Any]]
    tools: Any = None
    think: Any = None
    truncate: bool = True
    most: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """One reply. `prompt_tokens`: those that were really evaluated; `reason`: why it ended."""

    text: str
    thinking: str
    calls: tuple[tuple[str, dict[str, Any]], ...]
    prompt_tokens: int
    reason: str = "stop"

    @property
    def pieces(self) -> list[str]:
        return re.findall(r"\s*\S+", self.text)


def tokens(text: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", text))


def answer(asked: Asked) -> Answer:
    """Raises Refused for what the model cannot do, and for a prompt that is too long where it is not to be cut."""
    images = [image for message in asked.messages for image in message.get("images") or ()]
    _able(asked, images)
    evaluated = _evaluated(asked)
    if asked.tools and asked.messages[-1]["role"] == "user":
        return Answer("", "", (("get_weather", {"city": "Paris"}),), evaluated)
    text, thinking = _said(asked, len(images))
    return _ended(Answer(text, thinking, (), evaluated), asked)


def _able(asked: Asked, images: list[str]) -> None:
    full = f"registry.ollama.ai/library/{asked.model}"
    if asked.tools and "tools" not in asked.capabilities:
        raise Refused(400, f"{full} does not support tools")
    if asked.think and "thinking" not in asked.capabilities:
        raise Refused(400, f'"{asked.model}" does not support thinking')
    for image in images:
        try:
            base64.b64decode(image, validate=True)
        except ValueError as fault:
            at = next((place for place, each in enumerate(image) if not re.match(r"[\w+/=]", each)), 0)
            raise Refused(400, f"illegal base64 data at input byte {at}") from fault
    if images and "vision" not in asked.capabilities:
        hint = "hint: if this is unexpected, you may need to provide the mmproj"
        words = "Multimodal data provided, but model does not support multimodal requests."
        if asked.own_template:
            raise Refused(400, _runner_error(400, words, "invalid_request_error"))
        raise Refused(500, _runner_error(500, f"image input is not supported - {hint}", "server_error"))


def _runner_error(code: int, message: str, kind: str, **more: int) -> str:
    """What llama-server answered, which Ollama passes on as a text."""
    return json.dumps({"error": {"code": code, "message": message, "type": kind, **more}}, separators=(",", ":"))


def _said(asked: Asked, images: int) -> tuple[str, str]:
    said = "I can see one image in this request." if images == 1 else f"I can see {images} images." if images else None
    if asked.messages[-1]["role"] == "tool":
        said = "The weather in Paris is sunny, 21 degrees."
    text = said or "Hello! This reply comes from a stand-in for Ollama, not from a language model."
    wished = any("<think>" in message["content"] for message in asked.messages if message["role"] == "system")
    if asked.think or (asked.think is None and "thinking" in asked.capabilities):
        return text, THOUGHT
    return (f"<think>\n{THOUGHT}\n</think>\n{text}" if wished else text), ""


def _ended(whole: Answer, asked: Asked) -> Answer:
    """The reply up to a stop word, and at most as long as it may be."""
    text = whole.text
    for word in asked.stop:
        text = text.partition(word)[0]
    whole = replace(whole, text=text)
    if asked.most and len(whole.pieces) > asked.most:
        return replace(whole, text="".join(whole.pieces[: asked.most]), reason="length")
    return whole


def _evaluated(asked: Asked) -> int:
    """Tokens of the prompt that are read. The oldest of many messages are dropped without a word; one that is too long
    is cut to about half the context where the template is Ollama's own, and refused where it is the file's."""
    counts = [tokens(message["content"]) + 4 for message in asked.messages]
    prompt = sum(counts)
    if prompt <= asked.context:
        return prompt
    if asked.truncate:
        system = counts[0] if asked.messages[0]["role"] == "system" else 0
        rest = counts[1:] if system else counts
        while len(rest) > 1 and system + sum(rest) > asked.context:
            rest = rest[1:]
        if system + sum(rest) <= asked.context:
            return system + sum(rest)
        prompt = system + sum(rest)
    if not asked.truncate or not asked.own_template:
        words = (
            f"request ({prompt} tokens) exceeds the available context size ({asked.context} tokens), try increasing it"
        )
        kind, more = "exceed_context_size_error", {"n_prompt_tokens": prompt, "n_ctx": asked.context}
        raise Refused(400, _runner_error(400, words, kind, **more))
    limit = -(-(asked.context - KEEP) // 2) + KEEP
    log("WARN", "llama_server.go:317", "truncating input prompt", limit=limit, prompt=prompt, keep=KEEP, new=limit)
    return limit
