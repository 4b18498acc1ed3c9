"""Messages as OpenAI-compatible servers take them, images included, and whether a server cut them; and answers that
follow a JSON schema: how each engine is asked for one, and whether what came is one.

The truncation alarm: Ollama keeps about half of the context when a prompt does not fit, and answers as if nothing had
happened, but it tells how many tokens it evaluated. The tokens of a prompt cannot be counted without its tokenizer, but
they can be counted from below: Mistral's tokenizer (tekken) first splits text at every border between words and takes
each digit by itself, and no token spans such a border. So a prompt has at least as many tokens as words and digits; a
server that evaluated fewer has cut it.
"""

from __future__ import annotations

import json
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
    content = _beginning(path, MAX_TEXT_BYTES, "file", "a text file")
    if len(content) > MAX_TEXT_BYTES:
        raise MscliError(Code.FILE, f"file {path} is larger than 16 MiB: no context holds it", "Send a part of it.")
    if b"\0" in content:
        raise MscliError(Code.FILE, f"{path} is not a text file", "Send text; images go with --image.")
    return f"{path.name}:\n\n{content.decode('utf-8', 'replace')}"


def _beginning(path: Path, most_bytes: int, what: str, kind: str) -> bytes:
    """A file's content, or a byte more than `most_bytes` of it. Raises FILE."""
    try:
        with expanded(path).open("rb") as handle:
            return handle.read(most_bytes + 1)
    except OSError as fault:
        raise MscliError(Code.FILE, f"{what} {path}: {fault.strerror}", f"Give the path of {kind}.") from fault


@frozen
class Truncation:
    """A prompt that was cut. `sent_tokens`: at least so many were sent; `evaluated_tokens`: so many were read."""

    sent_tokens: int
    evaluated_tokens: int


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


# Engines that no schema can be given to: they are asked in words, and the answer is checked all the same.
_IN_WORDS = ("transformers",)
_MOST_SCHEMA_BYTES = 2**20


class Schema:
    """A JSON schema. Raises USAGE where it is none."""

    def __init__(self, value: Mapping[str, Any], name: str) -> None:
        import fastjsonschema

        self._value = value
        try:
            # Nothing is fetched: a schema may refer to itself, not to the network.
            self._check = fastjsonschema.compile(dict(value), handlers={"http": _nothing, "https": _nothing})
        except Exception as fault:  # it makes code of the schema: any exception may come
            raise MscliError(
                Code.USAGE, f"{name} is not a JSON schema: {fault}", "See https://json-schema.org"
            ) from fault

    def fields(self, engine: str) -> dict[str, Any]:
        """What is added to a request so that this engine keeps to the schema."""
        if engine in _IN_WORDS:
            return {}
        return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": self._value}}}

    def messages(self, engine: str, messages: list[Message]) -> list[Message]:
        """The messages, with the schema in words for an engine that takes it no other way."""
        if engine not in _IN_WORDS:
            return messages
        words = f"Answer with JSON that follows this schema, and with nothing else:\n{json.dumps(self._value)}"
        first = messages[:1]
        if first and first[0]["role"] == "system":
            return [system(f"{first[0]['content']}\n\n{words}"), *messages[1:]]
        return [system(words), *messages]

    def parsed(self, text: str) -> Any:
        """The answer's value. Raises REQUEST_FAILED where it is no JSON, or does not follow the schema."""
        import fastjsonschema

        try:
            value = json.loads(_bare(text))
        except (ValueError, RecursionError) as fault:
            raise _wrong(f"it is not JSON ({fault})", text) from fault
        try:
            self._check(value)
        except fastjsonschema.JsonSchemaValueException as fault:
            raise _wrong(fault.message, text) from fault
        return value


def schema_in(path: Path) -> Schema:
    """The schema in a file. Raises FILE for one that cannot be read, USAGE for what is no schema."""
    content = _beginning(path, _MOST_SCHEMA_BYTES, "schema", "a JSON schema")
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as fault:
        raise MscliError(Code.USAGE, f"schema {path} is not JSON: {fault}", "See https://json-schema.org") from fault
    if not isinstance(value, dict) or len(content) > _MOST_SCHEMA_BYTES:
        raise MscliError(
            Code.USAGE, f"schema {path} is not a JSON object of at most 1 MiB", "See https://json-schema.org"
        )
    return Schema(value, str(path))


def _bare(text: str) -> str:
    """The answer without the fence that a model puts round it when it is asked in words."""
    lines = text.strip().split("\n")
    fenced = len(lines) > 2 and lines[0].startswith("```") and lines[-1].strip() == "```"
    return "\n".join(lines[1:-1]) if fenced else text


def _wrong(why: str, text: str) -> MscliError:
    return MscliError(
        Code.REQUEST_FAILED,
        f"the answer does not follow the schema: {why}",
        "Ask again, with a larger --max-tokens where it was cut off.",
        {"text": text},
    )


def _nothing(uri: str) -> Any:
    raise ValueError(f"{uri} is not fetched")
