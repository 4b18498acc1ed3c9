"""Models of the published rows that are not in mscli's catalogue, from their public configurations."""

from __future__ import annotations

from pathlib import Path

from weight_rules import gguf_bytes, safetensors_bytes

from mscli.catalog.model import Architecture, Model, Source, Text, Variant, Vision
from mscli.catalog.sampling import Sampling
from mscli.planning.memory import GGML_BYTES
from mscli.planning.plan import from_gib

NOWHERE = Source("hub", "", "", (), None)


def text(layers: int, hidden: int, heads: int, kv_heads: int, head_dim: int, ffn: int, vocabulary: int) -> Text:
    """A decoder with untied embeddings and a gated feed-forward; parameters counted from its sizes."""
    layer = 2 * hidden * heads * head_dim + 2 * hidden * kv_heads * head_dim + 3 * hidden * ffn
    rest = 2 * vocabulary * hidden + (2 * layers + 1) * hidden
    linear = layers * layer
    return Text(linear + rest, linear, layers, hidden, heads, kv_heads, head_dim, ffn, vocabulary)


def model(name: str, sizes: Text, variant: Variant, context: int, vision: Vision | None = None) -> Model:
    """A model with one variant."""
    return Model(
        name, name, "", "", Architecture(sizes, vision), context, context, (), "none", None, Sampling(None, None, None),
        None, None, {variant.name: variant}, False, Path(),
    )  # fmt: skip


def variant(quantisation: str, weights: int, host: int = 0, projector: int = 0) -> Variant:
    """A variant called by its quantisation."""
    kind = "gguf" if quantisation.startswith("q") else "safetensors-hf"
    return Variant(quantisation, kind, quantisation, weights, projector, host, weights, "by rule", NOWHERE)


LLAMA_8B = text(32, 4096, 32, 8, 128, 14336, 128256)
LLAMA_70B = text(80, 8192, 64, 8, 128, 28672, 128256)
QWEN_32B = text(64, 5120, 40, 8, 128, 27648, 152064)
GEMMA_27B = text(62, 5376, 32, 16, 128, 21504, 262208)
# 48 layers x 4 KV heads x 128: all that one row tells of its model.
UNNAMED_48 = text(48, 4096, 32, 4, 128, 14336, 151936)


def llama_8b() -> Model:
    """meta-llama/Llama-3.1-8B-Instruct in bfloat16."""
    weights = safetensors_bytes(Architecture(LLAMA_8B, None), "bf16")
    return model("llama-3.1-8b", LLAMA_8B, variant("bf16", weights), 131072)


def qwen_32b() -> Model:
    """Qwen/Qwen2.5-Coder-32B-Instruct in Q4_K_M (without the small biases of its attention)."""
    embedding = QWEN_32B.vocabulary * QWEN_32B.hidden * GGML_BYTES["q4_k"] // 256
    return model("qwen2.5-32b", QWEN_32B, variant("q4_k_m", gguf_bytes(QWEN_32B, "q4_k_m"), embedding), 131072)


def gemma_27b() -> Model:
    """gaunernst/gemma-3-27b-it-int4-awq with the weights that its row states (17.611 GiB, vision encoder included)."""
    tower = Vision(1, 1, 27, 1152, 16, 4304, 14, 896, 4)
    return model("gemma-3-27b", GEMMA_27B, variant("w4a16", from_gib(17.611)), 131072, tower)
