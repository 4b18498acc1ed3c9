"""What the stand-in's models say: fixed text, one tool call where tools are given, a thought where one is asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from log import log

THOUGHT = "The user wants an answer, so I plan one briefly."


class Refused(Exception):
    """An HTTP status and the words that go with it."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


@dataclass(frozen=True)
class Answer:
    """One reply. `prompt_tokens`: those that were really evaluated."""

    text: str
    thinking: str
    calls: tuple[tuple[str, dict[str, Any]], ...]
    prompt_tokens: int

    @property
    def pieces(self) -> list[str]:
        return re.findall(r"\s*\S+", self.text)


def tokens(text: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", text))


def answer(
    model: str, capabilities: list[str], context: int, messages: list[dict[str, Any]], tools: Any, think: Any
) -> Answer:
    """`messages` as /api/chat takes them: text in `content`, base64 in `images`."""
    images = sum(len(message.get("images") or ()) for message in messages)
    for needed, name in ((images, "vision"), (tools, "tools"), (think, "thinking")):
        if needed and name not in capabilities:
            raise Refused(400, f'"{model}" does not support {name}')
    evaluated = _evaluated(messages, context)
    if tools and messages[-1]["role"] == "user":
        return Answer("", "", (("get_weather", {"city": "Paris"}),), evaluated)
    said = "I can see one image in this request." if images == 1 else f"I can see {images} images." if images else None
    if messages[-1]["role"] == "tool":
        said = "The weather in Paris is sunny, 21 degrees."
    text = said or "Hello! This reply comes from a stand-in for Ollama, not from a language model."
    wished = any("<think>" in message["content"] for message in messages if message["role"] == "system")
    if think or (think is None and "thinking" in capabilities):
        return Answer(text, THOUGHT, (), evaluated)
    return Answer(f"<think>\n{THOUGHT}\n</think>\n{text}" if wished else text, "", (), evaluated)


def _evaluated(messages: list[dict[str, Any]], context: int) -> int:
    """Tokens of the prompt; one that does not fit is cut to about half the context, without a word to the client."""
    prompt = sum(tokens(message["content"]) + 4 for message in messages)
    if prompt < context:
        return prompt
    limit = context // 2
    log("WARN", "llama_server.go:317", "truncating input prompt", limit=limit, prompt=prompt, keep=5, new=limit)
    return limit
