"""Which signs apply to a log: those of every mechanism, and the table of the engine that wrote it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from mscli.diagnosis import (
    signs_container,
    signs_devices,
    signs_driver,
    signs_gpu,
    signs_models,
    signs_serving,
    signs_software,
    signs_weights,
)
from mscli.diagnosis.signature import Sign
from mscli.engines.llamacpp import causes as llamacpp_causes
from mscli.engines.mistralrs import signs as mistralrs_signs
from mscli.engines.ollama import signs as ollama_signs
from mscli.engines.transformers import signs as transformers_signs
from mscli.engines.vllm import signs as vllm_signs

MECHANISMS: tuple[Sign, ...] = (
    *signs_driver.SIGNS,
    *signs_devices.SIGNS,
    *signs_gpu.SIGNS,
    *signs_container.SIGNS,
    *signs_software.SIGNS,
    *signs_models.SIGNS,
    *signs_serving.SIGNS,
    *signs_weights.SIGNS,
)

# Ordered tables: of each, the first sign that is seen counts.
ENGINES: Mapping[str, tuple[Sign, ...]] = {
    "ollama": ollama_signs.SIGNS,
    "vllm": vllm_signs.SIGNS,
    "mistralrs": mistralrs_signs.SIGNS,
    "llamacpp": llamacpp_causes.SIGNS,
    "transformers": transformers_signs.SIGNS,
}

# What an engine's log says in nearly every line; Ollama's holds lines of llama.cpp too.
_WRITTEN_BY: Mapping[str, re.Pattern[str]] = {
    "ollama": re.compile(r"level=\w+ source=\S+\.go|\[GIN\]|\bollama\b", re.IGNORECASE),
    "vllm": re.compile(r"\bvllm\b|\bEngineCore\b|\[\w+\.py:\d+\]", re.IGNORECASE),
    "mistralrs": re.compile(r"\bmistral\.?rs", re.IGNORECASE),
    "llamacpp": re.compile(r"\b(?:llama|ggml|gguf|clip|common)_\w+|\bsrv +\w+:"),
    "transformers": re.compile(r"\btransformers\b|from_pretrained"),
}


def written_by(log: str, backend: str | None) -> str | None:
    """The engine whose log it is: the one named (`llama.cpp`, `vllm-docker` ...), else told by the log."""
    if backend:
        named = backend.lower().replace(".", "").replace("-docker", "")
        return named if named in ENGINES else None
    return next((engine for engine, pattern in _WRITTEN_BY.items() if pattern.search(log)), None)
