"""What a chat completion request may hold, checked before a model sees it.

A field of the wrong kind is refused, and so is one that asks for what cannot be had here, where leaving it out would
give another reply than the one that was asked for. Null, default values and unknown fields pass.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from math import inf
from typing import Any

Body = Mapping[str, Any]
Kind = Callable[[Any], bool]
Fields = Mapping[str, tuple[Kind, str]]  # field -> whether a value is of its kind, and what it should be


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
    fit(request, _FIELDS)
    for name, (kind, words) in _HONORED.items():
        if name not in honors and request.get(name) is not None and not kind(request[name]):
            raise RequestError(f"`{name}` is not supported by this engine: {words}")
    urls = pictures(request)
    if len(urls) > images:
        sent = "1 image was" if len(urls) == 1 else f"{len(urls)} images were"
        raise RequestError(f"{sent} sent, and the plan is for {images}")
    if not all(url.startswith("data:") for url in urls):
        raise RequestError("send images inside the request, as data URLs (data:image/png;base64,...)")
    if (asked := request.get("response_format")) and asked["type"] not in formats:
        raise RequestError(
            f"`response_format` {asked['type'][:40]!r} is not supported by this engine: use {' or '.join(formats)}"
        )


def fit(request: Body, fields: Fields) -> None:
    """Raises RequestError for the first field that is there, not null, and not of its kind."""
    for name, (kind, words) in fields.items():
        if request.get(name) is not None and not kind(request[name]):
            raise RequestError(f"`{name}` must be {words}")


def as_content(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Parts as the content of a message; a lone text as such, for some templates know nothing else."""
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts or ""


def called(
    tools: Sequence[Mapping[str, Any]], names: Mapping[str, str], choice: Any, parallel: bool | None, missing: str
) -> dict[str, Any]:
    """The fields of a request that say what may or must be called. `tools` call a field of theirs as `names` tells for
    each of ours; `missing` of them is refused where a call is asked for."""
    if not tools:
        if choice not in ("auto", "none"):
            raise RequestError(f"`tool_choice` asks for a call, and `tools` holds {missing}")
        return {}
    told = [{ours: tool[theirs] for ours, theirs in names.items() if tool.get(theirs) is not None} for tool in tools]
    several = {} if parallel is None else {"parallel_tool_calls": parallel}
    return {"tools": [{"type": "function", "function": each} for each in told], "tool_choice": choice, **several}


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


def text(value: object) -> bool:
    """A kind of value: a text."""
    return isinstance(value, str)


def switch(value: object) -> bool:
    """A kind of value: true or false."""
    return isinstance(value, bool)


def is_object(value: object) -> bool:
    """A kind of value: an object."""
    return isinstance(value, dict)


def number(low: float, high: float) -> Kind:
    """A number within both bounds; neither NaN nor infinite."""
    return lambda value: _is_number(value) and low <= value <= high and abs(value) < inf


def count(value: object) -> bool:
    """A kind of value: a whole number from 1."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**31


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def list_of(of: Kind) -> Kind:
    """A kind of value: a list of values that are all of one kind."""
    return lambda value: isinstance(value, list) and all(map(of, value))


def holds(fields: Mapping[str, Kind], needed: Collection[str] = ()) -> Kind:
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
        return text(value.get("text"))
    link = value.get("image_url")
    return text(link) or (is_object(link) and text(link.get("url")))  # type: ignore[union-attr]


def _role(value: object) -> bool:
    return value in ("system", "developer", "user", "assistant", "tool")


def _content(value: object) -> bool:
    return text(value) or list_of(_part)(value)


def _format(value: object) -> bool:
    schema = {"json_schema": holds({"schema": is_object}, ("schema",))}
    is_schema = isinstance(value, dict) and value.get("type") == "json_schema"
    return holds({"type": text, **schema}, ("type", *schema) if is_schema else ("type",))(value)


def _arguments(value: object) -> bool:
    return text(value) or is_object(value)


_CALL = holds({"id": text, "function": holds({"name": text, "arguments": _arguments}, ("name",))}, ("function",))
_MESSAGE = holds(
    {"role": _role, "content": _content, "name": text, "tool_call_id": text, "tool_calls": list_of(_CALL)}, ("role",)
)
_TOOL = holds(
    {"function": holds({"name": text, "description": text, "parameters": is_object}, ("name",))}, ("function",)
)

_FIELDS: Fields = {
    "messages": (
        lambda value: bool(value) and list_of(_MESSAGE)(value),
        "a list of at least one message, each with a role, and as content a text or a list of texts and images",
    ),
    "tools": (list_of(_TOOL), "a list of tools, each with a function that has a name"),
    "stream": (switch, "true or false"),
    "stream_options": (holds({"include_usage": switch}), "an object"),
    "max_tokens": (count, "a whole number from 1"),
    "max_completion_tokens": (count, "a whole number from 1"),
    "temperature": (number(0, 100), "a number from 0"),
    "top_p": (number(1e-9, 1), "a number above 0 and up to 1"),
    "top_k": (lambda value: isinstance(value, int) and -1 <= value < 2**31, "a whole number from 1"),
    "min_p": (number(0, 1), "a number from 0 to 1"),
    "presence_penalty": (number(-2, 2), "a number from -2 to 2"),
    "frequency_penalty": (number(-2, 2), "a number from -2 to 2"),
    "stop": (lambda value: text(value) or list_of(text)(value), "a text or a list of texts"),
    "n": (count, "a whole number from 1"),
    "logprobs": (switch, "true or false"),
    "response_format": (_format, "an object with a type, and for json_schema with a schema"),
    "logit_bias": (is_object, "an object"),
}

# Field -> whether what is asked for is what every reply has, and what can be had.
_HONORED: Fields = {
    "n": (lambda value: value == 1, "one reply per request"),
    "logprobs": (lambda value: value is False, "no probabilities"),
    "top_logprobs": (lambda value: value == 0, "no probabilities"),
    "logit_bias": (lambda value: value == {}, "no token can be made likelier"),
    "tool_choice": (lambda value: value in ("auto", "none"), "it can be auto or none"),
    "functions": (lambda value: value == [], "send `tools`"),
}
