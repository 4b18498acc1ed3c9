"""What popular estimators would say, by the sums they publish; they are not run: they look models up online."""

from __future__ import annotations

from mscli.planning.memory import BLOCK, BLOCK_BYTES, Configuration, bytes_per_token
from mscli.planning.plan import GIB, MIB

# llmfit's bytes per parameter by quantisation (models.rs).
LLMFIT_BYTES = {"bf16": 2.0, "fp8": 1.0, "q8_0": 1.05, "q4_k_m": 0.58, "w4a16": 0.5, "nvfp4": 0.5}


def llmfit(config: Configuration) -> int:
    """Parameters x bytes + KV cache in 16 bit + 0.5 GB; no projector, no compute, no driver."""
    weights = config.text.parameters * LLMFIT_BYTES[config.variant.quantisation]
    return round(weights + config.kv_tokens * bytes_per_token(config.text, "f16") + 5e8)


def hf_mem(config: Configuration) -> int:
    """File bytes + KV cache; for GGUF with a head size of hidden / heads, a quarter too much for Mistral Small."""
    text = config.text
    head = text.hidden // text.heads if config.variant.format in ("gguf", "ollama") else text.head_dim
    kv = 2 * text.layers * text.kv_heads * head * BLOCK_BYTES[config.kv_type] // BLOCK
    return config.variant.weights_bytes + config.variant.projector_bytes + config.kv_tokens * kv


def gguf_parser(config: Configuration, gpus: int) -> int | None:
    """Weights but the embedding + projector + KV cache + a compute estimate + 250 MiB a GPU; GGUF only."""
    variant, text = config.variant, config.text
    if variant.format not in ("gguf", "ollama"):
        return None
    compute = 512 * (text.vocabulary + text.hidden) * 4 + 2 * config.context * 512
    kv = config.kv_tokens * bytes_per_token(text, config.kv_type)
    return variant.weights_bytes - variant.host_bytes + variant.projector_bytes + kv + gpus * (compute + 250 * MIB)


def gib_or_dash(size: int | None) -> str:
    """A size in GiB for the table."""
    return "-" if size is None else f"{size / GIB:.2f}"
