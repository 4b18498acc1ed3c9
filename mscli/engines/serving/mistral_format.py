"""Mistral's own format of a conversation, both ways: a request as tensors, and what the model writes taken apart as it
comes: the answer, the thought before it, and calls of tools.

The prompt is made by the model's Jinja template, or by mistral-common where there is tekken.json alone: Mistral's
repositories since June 2025 (Small 3.2, Magistral) hold no tokenizer.json.

Tokenizers of version 7 (Small 3.1) write calls as `[TOOL_CALLS][{"name": ..., "arguments": {...}}]`, those of version
11 and later (Small 3.2, Magistral) as `[TOOL_CALLS]name[ARGS]{...}`, once per call. From version 13 on a thought stands
between `[THINK]` and `[/THINK]`.
"""

from __future__ import annotations

import base64
import io
import json
import uuid
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING or __package__:
    from mscli.engines.serving.chat_request import Body, RequestError, pictures, role
else:  # beside this file, where there is no mscli
    from chat_request import Body, RequestError, pictures, role

CONTENT, REASONING, CALLS = "content", "reasoning", "calls"
TOOL_CALLS, ARGS, CALL_ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"
MARKS = {"[THINK]": REASONING, "[/THINK]": CONTENT, TOOL_CALLS: CALLS}
SILENT = ("</s>", "<pad>")

Call = dict[str, Any]
Message = Mapping[str, Any]


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


class Prompts(Protocol):
    """What turns requests into the model's inputs. `tokenizer` turns its tokens into text."""

    tokenizer: Any

    def inputs(self, request: Body) -> Mapping[str, Any]:
        """The prompt as tensors. Raises RequestError for messages that cannot be made into one."""


def prompts(options: Namespace, sees: bool) -> Prompts:
    """The prompts of the model in `options.model`; `sees`: whether it has a vision encoder."""
    folder = Path(options.model)
    if not (folder / "tokenizer.json").exists() and (folder / "tekken.json").exists():
        return CommonPrompts(options)
    return TemplatePrompts(options, sees and options.images > 0)


class TemplatePrompts:
    """By a Jinja template: the one given, else the model's own."""

    def __init__(self, options: Namespace, pictures: bool) -> None:
        import transformers

        kind: Any = transformers.AutoProcessor if pictures else transformers.AutoTokenizer
        # Where mistral-common is installed, it would be preferred for a folder that holds both.
        self._processor: Any = kind.from_pretrained(options.model, mistral_format=False)
        self.tokenizer: Any = getattr(self._processor, "tokenizer", self._processor)
        # None: what the tokenizer brings.
        self._template = options.chat_template.read_text() if options.chat_template else None

    def inputs(self, request: Body) -> Mapping[str, Any]:
        """See `Prompts`."""
        from jinja2 import TemplateError

        adapted = [_for_template(message) for message in request["messages"]]
        try:
            prompt = self.tokenizer.apply_chat_template(
                adapted,
                tools=_tools(request),
                chat_template=self._template,
                tokenize=False,
                add_generation_prompt=True,
            )
            return self._tokens(prompt, [_picture(url) for url in pictures(request)])
        except (TypeError, ValueError, KeyError, TemplateError) as fault:
            raise RequestError(f"the chat template does not take these messages: {fault}") from fault

    def _tokens(self, prompt: str, images: list[Any]) -> Mapping[str, Any]:
        """Raises ValueError where the prompt has another number of places for images."""
        made: Mapping[str, Any]
        if images:
            made = self._processor(text=prompt, images=[images], return_tensors="pt", add_special_tokens=False)
        else:
            made = self.tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        return made


class CommonPrompts:
    """By mistral-common, which Mistral calls the source of truth."""

    def __init__(self, options: Namespace) -> None:
        import transformers

        self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(options.model)

    def inputs(self, request: Body) -> Mapping[str, Any]:
        """See `Prompts`."""
        for url in pictures(request):
            _picture(url)
        try:
            made: Mapping[str, Any] = self.tokenizer.apply_chat_template(
                [_for_common(message) for message in request["messages"]],
                tools=_tools(request),
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            )
        except (TypeError, ValueError, KeyError, AssertionError) as fault:
            raise RequestError(f"the chat template does not take these messages: {fault}") from fault
        return made


def _tools(request: Body) -> list[Any] | None:
    """The tools that may be called, or None."""
    return None if request.get("tool_choice") == "none" else request.get("tools") or None


def _for_template(message: Message) -> Message:
    """As chat templates expect it: no null content, arguments as objects, pictures only as a place."""
    changed = {**message, "role": role(message), "content": message.get("content") or ""}
    if isinstance(changed["content"], list):
        changed["content"] = [
            {"type": "image"} if block.get("type") == "image_url" else block for block in changed["content"]
        ]
    if calls := message.get("tool_calls"):
        changed["tool_calls"] = [_with_object(call) for call in calls]
    return changed


def _with_object(call: Message) -> Message:
    function = call.get("function") or {}
    try:
        arguments = json.loads(function.get("arguments") or "{}")
    except (ValueError, TypeError):
        arguments = function.get("arguments")
    return {**call, "function": {**function, "arguments": arguments}}


def _for_common(message: Message) -> Message:
    """As mistral-common expects it: no nulls, no names of ours."""
    known = ("role", "content", "tool_calls", "tool_call_id", "name")
    return {**{key: message[key] for key in known if message.get(key) is not None}, "role": role(message)}


def _picture(url: str) -> Any:
    """The picture in a data URL."""
    import PIL.Image

    try:
        return PIL.Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")
    except (ValueError, OSError, SyntaxError, PIL.Image.DecompressionBombError) as fault:
        raise RequestError(f"a picture cannot be read: {fault}") from None
