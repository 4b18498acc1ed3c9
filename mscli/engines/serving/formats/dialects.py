"""How each engine that is a server is asked for a reply, and how its answer is read, line by line."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from mscli.engines.serving.chat_request import Body
from mscli.engines.serving.formats import ollama
from mscli.engines.serving.formats.chunks import CHAT, Chunk, event
from mscli.engines.serving.formats.strict_messages import accepted

Reader = Callable[[bytes], Chunk | None]


def _openai(path: str, body: Body, _alias: str, _context: int) -> tuple[str, Body]:
    """Always as a stream, which ends when the gateway leaves it."""
    tools = {"tools": None, "tool_choice": None} if body.get("tool_choice") == "none" else {}
    asked = {**body, **tools, "stream": True, "stream_options": {"include_usage": True}}
    return path, {name: value for name, value in asked.items() if value is not None}


def _vllm(path: str, body: Body, alias: str, context: int) -> tuple[str, Body]:
    """vLLM refuses conversations that other engines take, and a limit of the reply above its context."""
    limits = {name: body[name] for name in ("max_tokens", "max_completion_tokens") if body.get(name)}
    within = {name: min(limit, context) for name, limit in limits.items()}
    talk = {"messages": accepted(body["messages"])} if path == CHAT else {}
    return _openai(path, {**body, **within, **talk}, alias, context)


def _event(line: bytes) -> Chunk | None:
    """The chunk of a line; None for one that holds none."""
    data = line.removeprefix(b"data:").strip()
    return None if data in (line, b"[DONE]") else event(data)


@dataclass(frozen=True)
class Dialect:
    """`request`: path and body for the engine, from a checked request for CHAT or COMPLETION, the model's name and the
    context in tokens; `reader`: makes what reads the lines of one reply; `formats`, `honors`: see `chat_request.check`;
    `own_api`: whether clients may speak Ollama's API, by which its model is also loaded."""

    request: Callable[[str, Body, str, int], tuple[str, Body]] = _openai
    reader: Callable[[], Reader] = lambda: _event
    formats: Collection[str] = ("text", "json_object", "json_schema")
    honors: Collection[str] = ("n", "logprobs", "top_logprobs", "logit_bias", "tool_choice")
    own_api: bool = False


DIALECTS: Mapping[str, Dialect] = {
    "openai": Dialect(),  # llama.cpp, mistral.rs
    "vllm": Dialect(_vllm),
    "ollama": Dialect(ollama.request, ollama.Reader, honors=("logprobs", "top_logprobs"), own_api=True),
}
