"""KV cache bytes: exact for every engine and type."""

from __future__ import annotations

from mscli.catalog.model import Text

# Bytes that 32 elements take. GGML's q8_0 and q4_0 carry one f16 scale per 32 (ggml-common.h: block_q8_0, block_q4_0).
BLOCK = 32
BLOCK_BYTES = {"f32": 128, "f16": 64, "bf16": 64, "fp8": 32, "q8_0": 34, "q5_0": 22, "q4_0": 18}


def bytes_per_layer(text: Text, kv_type: str, tensor_parallel: int = 1) -> int:
    """KV bytes of one token in one layer on one GPU: 2 (K and V) x KV heads x head_dim x element size.

    head_dim is the model's own (128 for Mistral Small), never hidden/heads. With more GPUs than KV heads each GPU
    keeps one head. Source: vLLM's page size 2*block*kv_heads/t*head_dim*b; llama.cpp's n_embd_k_gqa.
    """
    heads = max(1, text.kv_heads // tensor_parallel)
    return 2 * heads * text.head_dim * BLOCK_BYTES[kv_type] // BLOCK


def bytes_per_token(text: Text, kv_type: str, tensor_parallel: int = 1) -> int:
    """KV bytes of one token over all layers on one GPU: 163,840 for Mistral Small in f16."""
    return text.layers * bytes_per_layer(text, kv_type, tensor_parallel)
