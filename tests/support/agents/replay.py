"""Requests of agents sent to an instance, and what became of each."""

from __future__ import annotations

import re

import httpx

from support.agents.requests import REPLAYED, Replayed

_CALL = re.compile(r'"tool_calls"\s*:\s*\[\s*\{|"type"\s*:\s*"(?:function_call|tool_use)"')
_TEXT = re.compile(r'"(?:content|delta|text)"\s*:\s*"[^"]')
_TIMEOUT_S = 120.0


def replayed(root: str, model: str, key: str | None = None) -> dict[str, str]:
    """`call`, `answer`, `nothing` or the refusal with its words, by the agent's name. `root`: without /v1."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return {each.agent: _sent(root, each, model, headers) for each in REPLAYED}


def told(found: dict[str, str]) -> dict[str, str]:
    """The same as the page says it."""
    return {agent: "refused" if what.startswith("HTTP ") else what for agent, what in found.items()}


def due() -> dict[str, str]:
    """What must become of each."""
    return {each.agent: "call" if each.calls else "answer" for each in REPLAYED}


def _sent(root: str, each: Replayed, model: str, headers: dict[str, str]) -> str:
    body = {"model": model, **each.body}
    got = httpx.post(root + each.path, json=body, headers=headers, timeout=_TIMEOUT_S, trust_env=False)
    if got.status_code != 200 or '"error":{' in got.text.replace(" ", ""):
        return f"HTTP {got.status_code}: {got.text[-300:]}"
    return "call" if _CALL.search(got.text) else "answer" if _TEXT.search(got.text) else "nothing"
