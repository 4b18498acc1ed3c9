"""Which memory model belongs to which engine."""

from __future__ import annotations

from collections.abc import Mapping

from mscli.planning.memory import llamacpp, mistralrs, ollama, transformers, vllm
from mscli.planning.memory.footprint import EngineMemory

MEMORY: Mapping[str, EngineMemory] = {
    "ollama": ollama.MEMORY,
    "vllm": vllm.MEMORY,
    "vllm-docker": vllm.MEMORY,
    "llama.cpp": llamacpp.MEMORY,
    "transformers": transformers.MEMORY,
    "mistral.rs": mistralrs.MEMORY,
}
