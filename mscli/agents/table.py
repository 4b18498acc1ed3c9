"""The agents that `mscli launch` connects: what each reads, how much context it needs, what it speaks (agents.yaml);
and a running instance as they are told of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from mscli.frozen import field, frozen
from mscli.instances.records import Record, api_key, must_run

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"


@frozen
class Agent:
    """One agent. `program`: its name on PATH; `install`: the command that brings it.

    `argv`, `env`, `files`: what it is given; files are written to `$folder`, which is the instance's own. `unset`: what
    of the user's environment would lead it elsewhere. `speaks`: the endpoint it needs. `least_context`: with less, its
    first request does not fit, or nothing is left for the answer. `when_small`: also given where the context is below
    AGENT_CONTEXT. `needs_tools`: useless on an instance without tool calls. `tried`: whether it was run.
    """

    title: str
    program: str
    install: str
    least_context: int
    argv: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    unset: tuple[str, ...] = ()
    speaks: str = CHAT
    when_small: Mapping[str, str] = field(default_factory=dict)
    needs_tools: bool = True
    tried: bool = True


AGENT_CONTEXT = 32_768
"""Tokens with which every agent can work for several turns."""


@cache
def agents() -> Mapping[str, Agent]:
    """The agents of agents.yaml, by the names under which `mscli launch` knows them."""
    import yaml

    text = Path(__file__).with_name("agents.yaml").read_text(encoding="utf-8")
    rows = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {name: Agent(**{key: _value(value) for key, value in row.items()}) for name, row in rows.items()}


def _value(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


# Of the context, what a reply may take where the model's makers recommend no limit, or more than that.
_OUTPUT_SHARE = 4


@frozen
class Deployment:
    """`root`: the address without /v1. `key`: None where none is asked for. `context`: of one request, prompt and reply
    together, and `output` of its reply, in tokens; the context is the engine's own word where it gave one.

    `images`: allowed per request. `stand_in`: a scripted test model, whose tokenizer counts about three times as many
    tokens. `gateway`: mscli's own stands in front, which answers what each of them needs.
    """

    name: str
    engine: str
    base_url: str
    root: str
    key: str | None
    model: str
    context: int
    output: int
    abilities: tuple[str, ...]
    images: int
    temperature: float | None
    stand_in: bool
    gateway: bool = False


def deployment_of(record: Record) -> Deployment:
    """What clients need to know. Raises NOT_RUNNING for one that has ended, FILE when its key cannot be read."""
    must_run(record)
    context = (record.taken.context if record.taken else None) or record.plan.context
    longest = record.sampling.max_tokens or context // _OUTPUT_SHARE
    return Deployment(
        name=record.name,
        engine=record.plan.engine,
        base_url=record.base_url,
        root=record.base_url.removesuffix("/v1"),
        key=api_key(record),
        model=record.alias,
        context=context,
        output=min(longest, context // 2),
        abilities=("chat", *record.capabilities),
        images=record.plan.images,
        temperature=record.sampling.temperature,
        stand_in=record.stand_in,
        gateway=record.gateway is not None,
    )
