"""Prompts as Transformers renders them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

Message = Mapping[str, Any]


@cache
def _compiled(template: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    environment.globals["raise_exception"] = _refuse
    return environment.from_string(template)


def render(template: str, messages: Sequence[Message], tools: Sequence[Message] = ()) -> str:
    """The prompt as Transformers renders it: its environment, JSON without escapes."""
    values = {"messages": list(messages), "tools": list(tools) or None, "bos_token": "<s>", "eos_token": "</s>"}
    return _compiled(template).render(**values)


def _refuse(reason: str) -> None:
    raise jinja2.TemplateError(reason)
