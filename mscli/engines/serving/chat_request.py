"""What a chat completion request may hold, checked before a model sees it.

A field of the wrong kind is refused, and so is one that asks for what cannot be had here, where leaving it out would
give another reply than the one that was asked for. Null, default values and unknown fields pass.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from math import inf
from typing import Any

Body = Mapping[str, Any]
Kind = Callable[[Any], bool]


class RequestError(Exception):
    """A request that cannot be answered, in words for whoever sent it. `status`: HTTP's; `code`: OpenAI's, if any."""

    def __init__(self, words: str, status: int = 400, code: str | None = None) -> None:
        super().__init__(words)
        self.status, self.code = status, code


def check(request: Body, images: int, formats: Collection[str], honors: Collection[str] = ()) -> None:
    """Raises RequestError for the first thing that is wrong. `images`: how many the request may hold; `formats`: the
    types of `response_format` that the engine honors, and `honors` the fields that most do not."""
    if request.get("messages") is None:
        raise RequestError("`messages` is missing")
    for name, (kind, words) in _FIELDS.items():
        if request.get(name) is not None and not kind(request[name]):
            raise RequestError(f"`{name}` must be {words}")
    for name, (kind, words) in _HONORED.items():
        if name not in honors and request.get(name) is not None and not kind(request[name]):
            raise RequestError(f"`{name}` is not supported by this engine: {words}")
    urls = pictures(request)
    if len(urls) > images:
        raise RequestError(f"{len(urls)} images were sent, and the plan is for {images}")
    if not all(url.startswith("data:") for url in urls):
        raise RequestError("send images inside the request, as data URLs (data:image/png;base64,...)")
    if (asked := request.get("response_format")) and asked["type"] not in formats:
        raise RequestError(
            f"`response_format` {asked['type'][:40]!r} is not supported by this engine: use {' or '.join(formats)}"
        )


def pictures(request: Body) -> list[str]:
    """The URLs of the images in the order in which they stand."""
    contents = [message["content"] for message in request["messages"] if isinstance(message.get("content"), list)]
    return [_url(part) for content in contents for part in content if part["type"] == "image_url"]


def role(message: Mapping[str, Any]) -> str:
    """The role as chat templates know it: what newer clients call developer is system to them."""
    return "system" if message["role"] == "developer" else str(message["role"])


def _url(part: Mapping[str, Any]) -> str:
    link = part["image_url"]
    return str(link["url"] if isinstance(link, dict) else link)


def _text(value: object) -> bool:
    return isinstance(value, str)


def _switch(value: object) -> bool:
    return isinstance(value, bool)


def _object(value: object) -> bool:
    return isinstance(value, dict)


def _number(low: float, high: float) -> Kind:
    """A number within both bounds; neither NaN nor infinite."""
    return lambda value: _is_number(value) and low <= value <= high and abs(value) < inf


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**31


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _list(of: Kind) -> Kind:
    return lambda value: isinstance(value, list) and all(map(of, value))


def _holds(fields: Mapping[str, Kind], needed: Collection[str] = ()) -> Kind:
    """An object with the fields `needed`, and of the other `fields` those that are there and not null, each of its
    kind."""
    return lambda value: (
        isinstance(value, dict)
        and all(value.get(name) is not None for name in needed)
        and all(kind(value[name]) for name, kind in fields.items() if value.get(name) is not None)
    )


def _part(value: object) -> bool:
    """A text, or an image in either of the two ways in which clients send one."""
    if not isinstance(value, dict) or value.get("type") not in ("text", "image_url"):
        return False
    if value["type"] == "text":
        return _text(value.get("text"))
    link = value.get("image_url")
    return _text(link) or (_object(link) and _text(link.get("url")))  # type: ignore[union-attr]


def _role(value: object) -> bool:
    return value in ("system", "developer", "user", "assistant", "tool")


def _content(value: object) -> bool:
    return _text(value) or _list(_part)(value)


def _format(value: object) -> bool:
    schema = {"json_schema": _holds({"schema": _object}, ("schema",))}
    is_schema = isinstance(value, dict) and value.get("type") == "json_schema"
    return _holds({"type": _text, **schema}, ("type", *schema) if is_schema else ("type",))(value)


def _arguments(value: object) -> bool:
    return _text(value) or _object(value)


_CALL = _holds({"id": _text, "function": _holds({"name": _text, "arguments": _arguments}, ("name",))}, ("function",))
_MESSAGE = _holds(
    {"role": _role, "content": _content, "name": _text, "tool_call_id": _text, "tool_calls": _list(_CALL)}, ("role",)
)
_TOOL = _holds(
    {"function": _holds({"name": _text, "description": _text, "parameters": _object}, ("name",))}, ("function",)
)

# Field -> whether a value is of its kind, and what it should be.
_FIELDS: Mapping[str, tuple[Kind, str]] = {
    "messages": (
        lambda value: bool(value) and _list(_MESSAGE)(value),
        "a list of at least one message, each with a role, and as content a text or a list of texts and images",
    ),
    "tools": (_list(_TOOL), "a list of tools, each with a function that has a name"),
    "stream": (_switch, "true or false"),
    "stream_options": (_holds({"include_usage": _switch}), "an object"),
    "max_tokens": (_count, "a whole number from 1"),
    "max_completion_tokens": (_count, "a whole number from 1"),
    "temperature": (_number(0, 100), "a number from 0"),
    "top_p": (_number(1e-9, 1), "a number above 0 and up to 1"),
    "top_k": (lambda value: isinstance(value, int) and -1 <= value < 2**31, "a whole number from 1"),
    "min_p": (_number(0, 1), "a number from 0 to 1"),
    "presence_penalty": (_number(-2, 2), "a number from -2 to 2"),
    "frequency_penalty": (_number(-2, 2), "a number from -2 to 2"),
    "stop": (lambda value: _text(value) or _list(_text)(value), "a text or a list of texts"),
    "n": (_count, "a whole number from 1"),
    "logprobs": (_switch, "true or false"),
    "response_format": (_format, "an object with a type, and for json_schema with a schema"),
    "logit_bias": (_object, "an object"),
}

# Field -> whether what is asked for is what every reply has, and what can be had.
_HONORED: Mapping[str, tuple[Kind, str]] = {
    "n": (lambda value: value == 1, "one reply per request"),
    "logprobs": (lambda value: value is False, "no probabilities"),
    "top_logprobs": (lambda value: value == 0, "no probabilities"),
    "logit_bias": (lambda value: value == {}, "no token can be made likelier"),
    "tool_choice": (lambda value: value in ("auto", "none"), "it can be auto or none"),
    "functions": (lambda value: value == [], "send `tools`"),
}
