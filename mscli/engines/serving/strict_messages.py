"""A conversation as mistral_common takes it, by which vLLM reads it: what that refuses is put otherwise.

What it takes passes as it is, so the prompt is the same as without the gateway.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from mscli.engines.serving.chat_request import role

_ID_LENGTH = 9
_ANSWERS = ("assistant", "tool")


def accepted(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages, those of the role `developer` as the system's, each id of a call with nine letters and digits.

    A system message behind an answer, or behind the result of a tool, is the user's: it stays in its place. An answer
    without words or calls is left out.
    """
    made: list[dict[str, Any]] = []
    behind = False
    for message in messages:
        told = role(message)
        behind = told == "system" and (behind or (bool(made) and made[-1]["role"] in _ANSWERS))
        said = _with_short_ids({**message, "role": "user" if behind else told})
        if told != "assistant" or said.get("content") or said.get("tool_calls"):
            made.append(said)
    return made


def _with_short_ids(message: dict[str, Any]) -> dict[str, Any]:
    if message["role"] == "tool":
        return {**message, "tool_call_id": _short(message.get("tool_call_id"))}
    if calls := message.get("tool_calls"):
        return {**message, "tool_calls": [{**call, "id": _short(call.get("id"))} for call in calls]}
    return message


def _short(identity: str | None) -> str:
    """Its last nine letters and digits: tokenizers before v13 take no other id. A call and its result get the same."""
    return re.sub("[^a-zA-Z0-9]", "", identity or "")[-_ID_LENGTH:].rjust(_ID_LENGTH, "0")
