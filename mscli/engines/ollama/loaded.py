"""Whether an instance's model is in its server's memory, by what the server says of itself.

Small, because `mscli status` loads it: the caller brings the way to ask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Asks the server for a path; the JSON that it answers, or None without an answer.
Ask = Callable[[str], Any]


def unloaded(ask: Ask, alias: str, has_runner: bool) -> str | None:
    """In words, why the model `alias` is not in memory; None if it is, or the server does not say.

    `has_runner`: whether a process that could hold it lives. A server goes on listing a model whose process died until
    the next request for it.
    """
    held = _models(ask("/api/ps"))
    if held is None:
        return None
    if _named(held, alias):
        return None if has_runner else "the process that held the model died; the next request loads it again"
    here = _models(ask("/api/tags"))
    if here is not None and not _named(here, alias):
        return "the server has no such model any more: it was removed, or another server answers on this port"
    return "the model is not in memory (unloaded, evicted or expired); the next request loads it again"


def other_context(ask: Ask, alias: str, planned: int) -> str | None:
    """In words, that the model is loaded with another context than planned; None if not, or the server does not say."""
    entry = _named(_models(ask("/api/ps")) or [], alias)
    context = entry.get("context_length") if entry else None
    if not isinstance(context, int) or context == planned:
        return None
    return f"the server serves a context of {context} tokens, {planned} were planned"


def _models(answer: Any) -> list[dict[str, Any]] | None:
    models = answer.get("models") if isinstance(answer, dict) else None
    return [model for model in models if isinstance(model, dict)] if isinstance(models, list) else None


def _named(models: list[dict[str, Any]], alias: str) -> dict[str, Any] | None:
    wanted = (alias.lower(), f"{alias.lower()}:latest")
    return next((model for model in models if str(model.get("model") or model.get("name")).lower() in wanted), None)
