"""The chat template of a Mistral model, by its tokenizer's version.

One source for all: a line that begins with a mark (`{#v7 v11#}`, `{#think#}`, `{#system#}`) is kept where one of the
mark's words applies. An engine so reads a template of one format alone: llama.cpp tells from its text how calls look.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from mscli.catalog.model import Model

_THOUGHTS = {"think-text": ("<think>", "</think>"), "think-tokens": ("[THINK]", "[/THINK]")}


def chat_template(version: str, reasoning: str = "none", system_prompt: str | None = None) -> str:
    """The Jinja template for a tokenizer `version` of TOKENIZERS.

    `reasoning`: how the model writes its thoughts, see `Model`. `system_prompt`: what stands in for a conversation's
    own where it has none. It renders what mistral_common 1.13 encodes, token for token, wherever that accepts the
    conversation; what else is accepted, tests/engines/templates lists.
    """
    opening, closing = _THOUGHTS.get(reasoning, ("", ""))
    kept = {version, *(["think"] if opening else []), *(["system"] if system_prompt else [])}
    text = "".join(_lines(kept))
    values = {"@OPEN@": opening, "@CLOSE@": closing, "@SYSTEM@": json.dumps(system_prompt, ensure_ascii=False)}
    for place, value in values.items():
        text = text.replace(place, value)
    return text


def _lines(kept: set[str]) -> list[str]:
    lines = Path(__file__).with_name("mistral.jinja").read_text().splitlines(keepends=True)
    marks = [re.match(r"\{#((?:v\d+|think|system)(?: (?:v\d+|think|system))*)#\}", line) for line in lines]
    return [
        line[mark.end() :] if mark else line
        for line, mark in zip(lines, marks, strict=True)
        if not mark or kept & set(mark[1].split())
    ]


def template_file(model: Model, folder: Path) -> dict[Path, str]:
    """The file in `folder` that holds the template of `model`, and its text; none where the tokenizer isn't known."""
    if model.tokenizer is None:
        return {}
    return {folder / "chat-template.jinja": chat_template(model.tokenizer, model.reasoning, model.system_prompt)}
