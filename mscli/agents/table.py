"""The agents that `mscli launch` connects: what each reads, how much context it needs, what it speaks (agents.yaml)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from functools import cache
from pathlib import Path
from typing import Any

from mscli.frozen import frozen

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
