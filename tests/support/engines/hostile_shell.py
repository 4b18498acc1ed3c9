"""A shell that still holds settings of other servers: each would serve another context, host, model or key."""

from __future__ import annotations

from pathlib import Path

LOOPBACK = "0100007F"
HOSTILE_SHELL = {
    "LLAMA_ARG_CTX_SIZE": "64",
    "LLAMA_ARG_HOST": "0.0.0.0",
    "LLAMA_ARG_ALIAS": "another",
    "LLAMA_ARG_MODEL": "/nowhere.gguf",
    "LLAMA_API_KEY": "of-another-server",
    "VLLM_API_KEY": "of-another-server",
    "VLLM_PORT": "1",
    "VLLM_USE_V1": "0",
    "VLLM_ATTENTION_BACKEND": "NOWHERE",
    "VLLM_PLUGINS": "nowhere",
    "OLLAMA_HOST": "0.0.0.0:1",
    "OLLAMA_CONTEXT_LENGTH": "64",
    "OLLAMA_NUM_PARALLEL": "7",
    "OLLAMA_KEEP_ALIVE": "1s",
    "OLLAMA_ORIGINS": "*",
    "OLLAMA_KV_CACHE_TYPE": "nowhere",
    "OLLAMA_LLM_LIBRARY": "nowhere",
    "OLLAMA_MAX_LOADED_MODELS": "1",
    "MISTRALRS_HOST": "0.0.0.0",
    "HF_TOKEN": "hf_of-nobody",
}


def listening_at(port: int) -> set[str]:
    """The addresses, as the kernel writes them, at which something listens on a port of this machine."""
    tables = (Path("/proc/net") / name for name in ("tcp", "tcp6"))
    rows = [line.split() for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
    return {row[1].rpartition(":")[0] for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")}
