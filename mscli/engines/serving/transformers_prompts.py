"""A request as tensors: by the model's Jinja template, or by mistral-common where there is tekken.json alone.

Mistral's repositories since June 2025 (Small 3.2, Magistral) hold no tokenizer.json.
"""

from __future__ import annotations

import base64
import io
import json
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from mscli.engines.serving.mistral_output import ARGS
    from mscli.engines.serving.openai_http import Body, RequestError
else:  # beside this file, where there is no mscli
    from mistral_output import ARGS
    from openai_http import Body, RequestError

Message = Mapping[str, Any]


class Prompts(Protocol):
    """What turns requests into the model's inputs. `tokenizer` turns its tokens into text."""

    tokenizer: Any

    def inputs(self, request: Body) -> Mapping[str, Any]:
        """The prompt as tensors. Raises RequestError for messages that cannot be made into one."""


def prompts(options: Namespace, sees: bool) -> Prompts:
    """The prompts of the model in `options.model`; `sees`: whether it has an image tower."""
    folder = Path(options.model)
    if not (folder / "tokenizer.json").exists() and (folder / "tekken.json").exists():
        return CommonPrompts(options)
    return TemplatePrompts(options, sees and options.images > 0)


class TemplatePrompts:
    """By a Jinja template: the model's own where it knows tools, else the one given (that of Small 3.1 does not)."""

    def __init__(self, options: Namespace, pictures: bool) -> None:
        import transformers

        kind: Any = transformers.AutoProcessor if pictures else transformers.AutoTokenizer
        # Where mistral-common is installed, it would be preferred for a folder that holds both.
        self._processor: Any = kind.from_pretrained(options.model, mistral_format=False)
        self.tokenizer: Any = getattr(self._processor, "tokenizer", self._processor)
        self._images = int(options.images)
        self._template = self._choice(options.chat_template)
        self._args_syntax = ARGS in self.tokenizer.get_vocab()

    def inputs(self, request: Body) -> Mapping[str, Any]:
        """See `Prompts`."""
        from jinja2 import TemplateError

        messages, tools, pictures = _conversation(request, self._images)
        adapted = [_for_template(message) for message in messages]
        try:
            prompt = self.tokenizer.apply_chat_template(
                adapted,
                tools=tools,
                chat_template=self._template,
                tokenize=False,
                add_generation_prompt=True,
                args_syntax=self._args_syntax,
            )
        except (TypeError, ValueError, KeyError, TemplateError) as fault:
            raise RequestError(f"the chat template does not take these messages: {fault}") from fault
        made: Mapping[str, Any]
        if pictures:
            images = [[_picture(url) for url in pictures]]
            made = self._processor(text=prompt, images=images, return_tensors="pt", add_special_tokens=False)
        else:
            made = self.tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        return made

    def _choice(self, ours: Path | None) -> str | None:
        own = getattr(self._processor, "chat_template", None) or getattr(self.tokenizer, "chat_template", None)
        if isinstance(own, str) and ("tools" in own or ours is None):
            return own
        return ours.read_text() if ours else None


class CommonPrompts:
    """By mistral-common, which Mistral calls the source of truth."""

    def __init__(self, options: Namespace) -> None:
        import transformers

        self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(options.model)
        self._images = int(options.images)

    def inputs(self, request: Body) -> Mapping[str, Any]:
        """See `Prompts`."""
        messages, tools, pictures = _conversation(request, self._images)
        for url in pictures:
            _picture(url)
        try:
            made: Mapping[str, Any] = self.tokenizer.apply_chat_template(
                [_for_common(message) for message in messages],
                tools=tools,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            )
        except (TypeError, ValueError, KeyError, AssertionError) as fault:
            raise RequestError(f"the chat template does not take these messages: {fault}") from fault
        return made


def _conversation(request: Body, most: int) -> tuple[list[Message], list[Any] | None, list[str]]:
    """The messages, the tools or None, and the pictures in the order in which they stand. Raises RequestError."""
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(each, dict) for each in messages):
        raise RequestError("`messages` must be a list of at least one message")
    if request.get("tool_choice") not in (None, "auto", "none"):
        raise RequestError("`tool_choice` can be auto or none on this engine")
    tools = None if request.get("tool_choice") == "none" else request.get("tools") or None
    blocks = [block for message in messages if isinstance(message.get("content"), list) for block in message["content"]]
    pictures = [_url(block) for block in blocks if block.get("type") == "image_url"]
    if len(pictures) > most:
        raise RequestError(f"{len(pictures)} images were sent, and the plan is for {most}")
    return messages, tools, pictures


def _for_template(message: Message) -> Message:
    """As chat templates expect it: no null content, arguments as objects, pictures only as a place."""
    changed = {**message, "content": message.get("content") or ""}
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
    return {key: message[key] for key in known if message.get(key) is not None}


def _url(block: Message) -> str:
    link = block.get("image_url")
    return str(link.get("url") if isinstance(link, dict) else link)


def _picture(url: str) -> Any:
    """The picture in a data URL. Others are refused: whoever may ask must not make this machine fetch things."""
    import PIL.Image

    if not url.startswith("data:"):
        raise RequestError("send pictures inside the request, as data URLs (data:image/png;base64,...)")
    try:
        return PIL.Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")
    except (ValueError, OSError) as fault:
        raise RequestError(f"a picture cannot be read: {fault}") from None
