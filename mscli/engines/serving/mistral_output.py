"""What Mistral models write, taken apart as it comes: the answer, the thought before it, and calls of tools.

Tokenizers of version 7 (Small 3.1) write calls as `[TOOL_CALLS][{"name": ..., "arguments": {...}}]`, those of version
11 and later (Small 3.2, Magistral) as `[TOOL_CALLS]name[ARGS]{...}`, once per call. From version 13 on a thought stands
between `[THINK]` and `[/THINK]`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

CONTENT, REASONING, CALLS = "content", "reasoning", "calls"
TOOL_CALLS, ARGS, CALL_ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"
MARKS = {"[THINK]": REASONING, "[/THINK]": CONTENT, TOOL_CALLS: CALLS}
SILENT = ("</s>", "<pad>")

Call = dict[str, Any]


class Reader:
    """Takes text in pieces of any size and gives back (kind, text), with a mark that is cut in two put together.

    `stops`: texts that end the answer. `stopped` becomes True when one of them, or the end of the turn, has come.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._ends = (*SILENT, *stops)
        self._state = CONTENT
        self._held = ""
        self._calls: list[str] = []
        self.stopped = False

    def feed(self, text: str) -> Iterator[tuple[str, str]]:
        """What is certain of the text so far: a possible beginning of a mark is kept back. Nothing after an end."""
        if self.stopped:
            return
        self._held += text
        while not self.stopped and (found := self._next_mark()):
            before, _, self._held = self._held.partition(found)
            yield from self._say(before)
            if found in self._ends:
                self.stopped = True
                self._held = ""
            else:
                self._enter(MARKS[found])
        sure = len(self._held) - self._possible_mark()
        said, self._held = self._held[:sure], self._held[sure:]
        yield from self._say(said)

    def end(self) -> Iterator[tuple[str, str]]:
        """What was kept back. Calls that cannot be read are given back as the text they are."""
        yield from self._say(self._held)
        self._held = ""
        if self._calls and not self.calls():
            yield CONTENT, TOOL_CALLS + TOOL_CALLS.join(self._calls)

    def calls(self) -> list[Call]:
        """The calls written so far, as OpenAI's API words them; none while one of them is not whole."""
        found: list[Call] = []
        for text in self._calls:
            part = parse_calls(text)
            if part is None:
                return []
            found += part
        return found

    def _enter(self, state: str) -> None:
        self._state = state
        if state == CALLS:
            self._calls.append("")

    def _say(self, text: str) -> Iterator[tuple[str, str]]:
        if self._state == CALLS:
            self._calls[-1] += text
        elif text:
            yield self._state, text

    def _next_mark(self) -> str | None:
        places = {mark: self._held.find(mark) for mark in (*MARKS, *self._ends)}
        seen = {mark: place for mark, place in places.items() if place >= 0}
        return min(seen, key=seen.__getitem__) if seen else None

    def _possible_mark(self) -> int:
        """How many characters at the end may be the beginning of a mark."""
        return max(
            (n for mark in (*MARKS, *self._ends) for n in range(1, len(mark)) if self._held.endswith(mark[:n])),
            default=0,
        )


def parse_calls(text: str) -> list[Call] | None:
    """What stands behind one `[TOOL_CALLS]`, in either syntax; None where it is neither or not whole."""
    name, mark, arguments = text.strip().partition(ARGS)
    try:
        if mark:
            call_id = name.partition(CALL_ID)[2]
            return [_call(name.partition(CALL_ID)[0], json.loads(arguments), call_id)]
        listed = json.loads(name)
        return [_call(each["name"], each["arguments"], each.get("id", "")) for each in listed] or None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _call(name: str, arguments: object, call_id: object) -> Call:
    """One call. Mistral's own ids are nine letters and digits; its templates refuse others."""
    written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {
        "id": str(call_id or uuid.uuid4().hex[:9]).strip(),
        "type": "function",
        "function": {"name": name.strip(), "arguments": written},
    }
