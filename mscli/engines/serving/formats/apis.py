"""The APIs that clients are answered in: each as a chat completion request and back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from mscli.engines.serving.chat_request import Body, RequestError
from mscli.engines.serving.formats import chat_reply, messages, responses
from mscli.engines.serving.formats.chunks import CHAT, COMPLETION, Chunk

RESPONSES, MESSAGES, OLLAMA = "/v1/responses", "/v1/messages", "/api/"


class Reply(Protocol):
    """What the chunks of one reply are told as. `last`: what ends a stream that is whole."""

    last: bytes

    def feed(self, made: Chunk) -> Iterator[Chunk]:
        """The events that a chunk makes."""

    def end(self) -> Iterator[Chunk]:
        """The events at the end of a stream that is whole."""

    def broken(self, fault: RequestError) -> Chunk:
        """The last event of a stream that broke off."""

    def whole(self) -> Chunk:
        """The reply that was not streamed."""


# Path -> the request as a chat completion (or a plain one), and the reply in its own shape.
APIS: Mapping[str, tuple[Callable[[Body], Body], Callable[[str, Body], Reply]]] = {
    CHAT: (dict, chat_reply.Reply),
    COMPLETION: (dict, chat_reply.Plain),
    RESPONSES: (responses.request, responses.Reply),
    MESSAGES: (messages.request, messages.Reply),
}


def error(fault: RequestError, path: str) -> Chunk:
    """A refusal in the shape of the API that `path` belongs to."""
    if path.startswith(OLLAMA):
        return {"error": str(fault)}
    return messages.error(fault) if path.startswith(MESSAGES) else chat_reply.error(fault)


def sent(event: Chunk) -> bytes:
    """A server-sent event."""
    name = f"event: {event['type']}\n" if "type" in event else ""
    return f"{name}data: {json.dumps(event, ensure_ascii=False)}\n\n".encode()


def json_object(raw: bytes) -> Body:
    """A request. Raises RequestError for anything else, for numbers that are none, and for halves of characters."""

    def no_number(word: str) -> None:
        raise ValueError(f"{word} is not a number")

    try:
        body = json.loads(raw, parse_constant=no_number)
        if not isinstance(body, dict):
            raise ValueError("it is something else")
        if re.search(rb"\\u[dD][89a-fA-F]", raw):
            json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as fault:
        raise RequestError(f"the body is no JSON object: {fault}") from None
    return body
