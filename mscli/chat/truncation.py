"""The truncation alarm: a server that cuts long prompts says nothing, but it tells how many tokens it evaluated.

Ollama keeps about half of the context when a prompt does not fit, and answers as if nothing had happened. The tokens
of a prompt cannot be counted without its tokenizer, but they can be counted from below: Mistral's tokenizer (tekken)
first splits text at every border between words and takes each digit by itself, and no token spans such a border. So a
prompt has at least as many tokens as words and digits; a server that evaluated fewer has cut it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_WORD = re.compile(r"[^\W\d_]+|\d")


@dataclass(frozen=True)
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


def cut_prompt(messages: Iterable[Mapping[str, object]], evaluated_tokens: int | None) -> Truncation | None:
    """Whether the prompt of this conversation was cut, by what the server says it evaluated (see `truncation`)."""
    return truncation(least_prompt_tokens(messages), evaluated_tokens)


def least_tokens(text: str) -> int:
    """How many tokens `text` has at least, for tekken: one for each word and each digit.

    Marks (accents that stand apart, vowel signs) do not end a word there, so they are left out first.
    """
    plain = text if text.isascii() else "".join(c for c in text if not unicodedata.category(c).startswith("M"))
    return sum(1 for _ in _WORD.finditer(plain))


def least_prompt_tokens(messages: Iterable[Mapping[str, object]]) -> int:
    """How many tokens a conversation has at least; images and tool calls in it count nothing."""
    return sum(least_tokens(text) for message in messages for text in _texts(message.get("content")))


def _texts(content: object) -> Iterable[str]:
    if isinstance(content, str):
        return (content,)
    parts = content if isinstance(content, list) else []
    return (str(part.get("text") or "") for part in parts if isinstance(part, dict))
