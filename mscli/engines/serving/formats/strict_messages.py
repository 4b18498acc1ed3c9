"""A conversation as mistral_common takes it, by which vLLM reads it: what that refuses is put otherwise.

What it takes passes as it is, so the prompt is the same as without the gateway.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from mscli.engines.serving.chat_request import role

NO_RESULT = "(no result)"
_ID_LENGTH = 9
_ANSWERS = ("assistant", "tool")


def accepted(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages: the role `developer` is the system's, and the id of a call has nine letters and digits.

    A system message behind an answer, or behind the result of a tool, is the user's and stays in its place; so does a
    result that no call waits for. A call without a result gets one. An answer without words or calls is left out.
    """
    talk = _Talk()
    for message in messages:
        talk.add(message, role(message))
    return talk.made


class _Talk:
    """What was said so far, and the ids of calls that wait for their results."""

    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []
        self._waiting: list[str] = []
        self._put = False  # whether the last one was a system message, put as the user's

    def add(self, message: Mapping[str, Any], told: str) -> None:
        if told == "tool":
            self._add_result(message)
            return
        self.made += [{"role": "tool", "tool_call_id": each, "content": NO_RESULT} for each in self._waiting]
        behind = bool(self.made) and self.made[-1]["role"] in _ANSWERS
        self._put = told == "system" and (self._put or behind)
        calls = [{**call, "id": _short(call.get("id"))} for call in message.get("tool_calls") or ()]
        self._waiting = [call["id"] for call in calls]
        if told != "assistant" or message.get("content") or calls:
            called = {"tool_calls": calls} if calls else {}
            self.made.append({**message, "role": "user" if self._put else told, **called})

    def _add_result(self, message: Mapping[str, Any]) -> None:
        self._put = False
        if (identity := _short(message.get("tool_call_id"))) in self._waiting:
            self._waiting.remove(identity)
            self.made.append({**message, "tool_call_id": identity})
        else:
            self.made.append({"role": "user", "content": message.get("content") or ""})


def _short(identity: str | None) -> str:
    """Its last nine letters and digits: tokenizers before v13 take no other id. A call and its result get the same."""
    return re.sub("[^a-zA-Z0-9]", "", identity or "")[-_ID_LENGTH:].rjust(_ID_LENGTH, "0")
