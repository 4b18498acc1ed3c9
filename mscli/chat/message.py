"""Messages as OpenAI-compatible servers take them, images included, and whether a server cut them.

The truncation alarm: Ollama keeps about half of the context when a prompt does not fit, and answers as if nothing had
happened, but it tells how many tokens it evaluated. The tokens of a prompt cannot be counted without its tokenizer, but
they can be counted from below: Mistral's tokenizer (tekken) first splits text at every border between words and takes
each digit by itself, and no token spans such a border. So a prompt has at least as many tokens as words and digits; a
server that evaluated fewer has cut it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mscli.errors import Code, MscliError
from mscli.frozen import frozen
from mscli.paths import expanded

Message = dict[str, Any]
_WORD = re.compile(r"[^\W\d_]+|\d")
# About ten times what the longest context of these models holds.
MAX_TEXT_BYTES = 16 * 2**20


def system(text: str) -> Message:
    """A system prompt."""
    return {"role": "system", "content": text}


def user(text: str, images: Sequence[str] = ()) -> Message:
    """A user's turn. Images are data URLs (see image.py)."""
    if not images:
        return {"role": "user", "content": text}
    parts: list[Message] = [{"type": "image_url", "image_url": {"url": url}} for url in images]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def assistant(text: str, reasoning: str = "", in_text: bool = False) -> Message:
    """A reply that was given. Without its reasoning, as the models' makers advise for longer conversations.

    `in_text`: the model writes its reasoning into the text. Else it goes in a field: vLLM and Ollama read one name,
    llama.cpp the other."""
    if not reasoning:
        return {"role": "assistant", "content": text}
    if in_text:
        return {"role": "assistant", "content": f"<think>\n{reasoning.strip()}\n</think>\n\n{text}"}
    return {"role": "assistant", "content": text, "reasoning": reasoning, "reasoning_content": reasoning}


def text_file(path: Path) -> str:
    """A text file for a prompt, under its name. Raises FILE for one that is missing, no text or too large."""
    try:
        with expanded(path).open("rb") as handle:
            content = handle.read(MAX_TEXT_BYTES + 1)
    except OSError as fault:
        raise MscliError(Code.FILE, f"file {path}: {fault.strerror}", "Give the path of a text file.") from fault
    if len(content) > MAX_TEXT_BYTES:
        raise MscliError(Code.FILE, f"file {path} is larger than 16 MiB: no context holds it", "Send a part of it.")
    if b"\0" in content:
        raise MscliError(Code.FILE, f"{path} is not a text file", "Send text; images go with --image.")
    return f"{path.name}:\n\n{content.decode('utf-8', 'replace')}"


@frozen
class Truncation:
    """A prompt that was cut. `sent_tokens`: at least so many were sent; `evaluated_tokens`: so many were read."""

    sent_tokens: int
    evaluated_tokens: int

    @property
    def lost_tokens(self) -> int:
        """At least so many the model never saw."""
        return self.sent_tokens - self.evaluated_tokens


def truncation(sent_tokens: int, evaluated_tokens: int | None) -> Truncation | None:
    """Whether a prompt was cut. `sent_tokens`: a lower bound, or the count of an earlier turn of the same conversation.

    `evaluated_tokens`: `prompt_eval_count` of Ollama's own API, `usage.prompt_tokens` of OpenAI's. None or 0: not told.
    """
    if not evaluated_tokens or evaluated_tokens >= sent_tokens:
        return None
    return Truncation(sent_tokens, evaluated_tokens)


def least_tokens(text: str) -> int:
    """How many tokens `text` has at least, for tekken: one for each word and each digit.

    Marks (accents that stand apart, vowel signs) do not end a word there, so they are left out first.
    """
    plain = text if text.isascii() else "".join(c for c in text if not unicodedata.category(c).startswith("M"))
    return sum(1 for _ in _WORD.finditer(plain))


def least_prompt_tokens(messages: Iterable[Mapping[str, object]]) -> int:
    """How many tokens a conversation has at least; images and tool calls in it count nothing."""
    return sum(least_tokens(text) for message in messages for text in _texts(message.get("content")))


# Measured with tekken: 4.8 for English prose, 3.2 to 4.3 for code, YAML and other languages. Each digit is a token.
_BYTES_PER_TOKEN = 3.9
_DIGIT = re.compile(rb"[0-9]")
_TOKENS_PER_MESSAGE = 4


def estimated_tokens(messages: Iterable[Mapping[str, object]], image_tokens: int = 1000) -> int:
    """About how many tokens a conversation has; never fewer than there are words and digits in it."""
    total = 0.0
    for message in messages:
        content = message.get("content")
        images = sum(part.get("type") == "image_url" for part in content) if isinstance(content, list) else 0
        total += _TOKENS_PER_MESSAGE + images * image_tokens
        for text in _texts(content):
            size = text.encode("utf-8", "replace")
            digits = len(_DIGIT.findall(size))
            total += max((len(size) - digits) / _BYTES_PER_TOKEN + digits, least_tokens(text))
    return int(total)


def _texts(content: object) -> Iterable[str]:
    if isinstance(content, str):
        return (content,)
    parts = content if isinstance(content, list) else []
    return (str(part.get("text") or "") for part in parts if isinstance(part, dict))
