"""Rules that predict a variant's weight bytes from its architecture; the catalogue states the exact ones, and a test
compares the two."""

from __future__ import annotations

from mscli.catalog.model import Architecture, Text
from mscli.planning.memory import GGML_BYTES

# Bytes per quantisable parameter in safetensors. w4a16: 4 bits and one bf16 scale per 128; nvfp4: 4 bits and one FP8
# scale per 16; nf4: 4 bits and a double-quantised absmax per 64.
LINEAR_BYTES = {
    "bf16": 2.0,
    "fp8": 1.0,
    "w8a8": 1.0,
    "w4a16": 0.5 + 2 / 128,
    "nvfp4": 0.5 + 1 / 16,
    "bnb-4bit": 0.5159,
    "bnb-8bit": 1.0,
}


def safetensors_bytes(architecture: Architecture, quantisation: str) -> int:
    """All weights of a safetensors variant by rule: quantisable parameters at their width, everything else 16 bit.

    Source: one vLLM log of Mistral Small NVFP4 (model loading 15.05 GiB; this rule 14.96).
    """
    text, vision = architecture.text, architecture.vision
    rest = text.parameters - text.linear_parameters
    if vision:
        rest += vision.tower_parameters + vision.projector_parameters
    return round(text.linear_parameters * LINEAR_BYTES[quantisation]) + 2 * rest


def gguf_bytes(text: Text, quantisation: str) -> int:
    """Tensor bytes of the text GGUF, to the byte, for f16, bf16, q8_0, q6_k and q4_k_m.

    Source: llama.cpp's src/llama-quant.cpp: norms stay f32; in Q4_K_M half of attn_v and ffn_down and the output matrix
    are Q6_K, everything else Q4_K.
    """
    norms = 4 * text.hidden * (2 * text.layers + 1)
    matrices = sum(_matrix_bytes(text, name, size, quantisation) for name, size in _matrices(text).items())
    return norms + matrices


def _matrices(text: Text) -> dict[str, int]:
    """Elements of each matrix of one layer, and of the two vocabulary matrices."""
    attention, kv = text.hidden * text.heads * text.head_dim, text.hidden * text.kv_heads * text.head_dim
    feed = text.hidden * text.ffn
    return {
        "attn_q": attention, "attn_output": attention, "attn_k": kv, "attn_v": kv,
        "ffn_gate": feed, "ffn_up": feed, "ffn_down": feed,
        "token_embd": text.vocabulary * text.hidden, "output": text.vocabulary * text.hidden,
    }  # fmt: skip


def _matrix_bytes(text: Text, name: str, elements: int, quantisation: str) -> int:
    """Bytes of one matrix over all layers (the vocabulary matrices exist once)."""
    count = 1 if name in ("token_embd", "output") else text.layers
    if quantisation != "q4_k_m":
        return count * elements * GGML_BYTES[quantisation] // 256
    if name == "output":
        return elements * GGML_BYTES["q6_k"] // 256
    finer = _more_bits(text.layers) if name in ("attn_v", "ffn_down") else 0
    return elements * (finer * GGML_BYTES["q6_k"] + (count - finer) * GGML_BYTES["q4_k"]) // 256


def _more_bits(layer_count: int) -> int:
    """How many layers llama.cpp's use_more_bits() picks: the first and last eighth, and every third between."""
    eighth = layer_count // 8
    last = 7 * layer_count // 8
    return sum(i < eighth or i >= last or (i - eighth) % 3 == 2 for i in range(layer_count))
