"""Answers that follow a JSON schema: how each engine is asked for one, and whether what came is one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mscli.chat import message
from mscli.chat.message import Message
from mscli.errors import Code, MscliError
from mscli.paths import expanded

# Engines that no schema can be given to: they are asked in words, and the answer is checked all the same.
_IN_WORDS = ("transformers",)
_MOST_BYTES = 2**20


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
            return [message.system(f"{first[0]['content']}\n\n{words}"), *messages[1:]]
        return [message.system(words), *messages]

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


def read(path: Path) -> Schema:
    """The schema in a file. Raises FILE for one that cannot be read, USAGE for what is no schema."""
    try:
        with expanded(path).open("rb") as handle:
            content = handle.read(_MOST_BYTES + 1)
    except OSError as fault:
        raise MscliError(Code.FILE, f"schema {path}: {fault.strerror}", "Give the path of a JSON schema.") from fault
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as fault:
        raise MscliError(Code.USAGE, f"schema {path} is not JSON: {fault}", "See https://json-schema.org") from fault
    if not isinstance(value, dict) or len(content) > _MOST_BYTES:
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
