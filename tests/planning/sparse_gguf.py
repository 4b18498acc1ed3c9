"""GGUF files in the exact shape of the 24B, with Q4_K_M's tensor types and holes instead of weights.

llama.cpp reads the header and projects its buffers from it; the 14 GB are never written nor read.
"""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter, quant_shape_to_byte_shape

from mscli.catalog.model import Text

Q4_K, Q6_K, F32 = GGMLQuantizationType.Q4_K, GGMLQuantizationType.Q6_K, GGMLQuantizationType.F32


def write_q4_k_m(path: Path, text: Text, context: int) -> Path:
    """A text model of `text`'s sizes whose file is one large hole behind the header."""
    writer = GGUFWriter(str(path), "llama")
    _metadata(writer, text, context)
    for name, shape, kind in _tensors(text):
        _add(writer, name, shape, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    infos = [info for part in writer.tensors for info in part.values()]
    size = sum(writer.ggml_pad(info.nbytes, writer.data_alignment) for info in infos)
    file = writer.fout[0]  # type: ignore[index]
    file.flush()
    file.truncate(writer.ggml_pad(file.tell(), writer.data_alignment) + size)
    writer.close()
    return path


def _metadata(writer: GGUFWriter, text: Text, context: int) -> None:
    writer.add_context_length(context)
    writer.add_embedding_length(text.hidden)
    writer.add_block_count(text.layers)
    writer.add_feed_forward_length(text.ffn)
    writer.add_head_count(text.heads)
    writer.add_head_count_kv(text.kv_heads)
    writer.add_key_length(text.head_dim)
    writer.add_value_length(text.head_dim)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(1e9)
    writer.add_rope_dimension_count(text.head_dim)
    writer.add_vocab_size(text.vocabulary)
    writer.add_tokenizer_model("none")


def _tensors(text: Text) -> list[tuple[str, tuple[int, ...], GGMLQuantizationType]]:
    """llama.cpp's Q4_K_M recipe: output Q6_K, attn_v and ffn_down Q6_K in the outer eighths and every third layer."""
    wide, narrow = text.heads * text.head_dim, text.kv_heads * text.head_dim
    found: list[tuple[str, tuple[int, ...], GGMLQuantizationType]] = [
        ("token_embd", (text.vocabulary, text.hidden), Q4_K),
        ("output_norm", (text.hidden,), F32),
        ("output", (text.vocabulary, text.hidden), Q6_K),
    ]
    for layer in range(text.layers):
        eighth = text.layers // 8
        fine = layer < eighth or layer >= 7 * text.layers // 8 or (layer - eighth) % 3 == 2
        finer = Q6_K if fine else Q4_K
        for name, shape, kind in (
            ("attn_q", (wide, text.hidden), Q4_K),
            ("attn_k", (narrow, text.hidden), Q4_K),
            ("attn_v", (narrow, text.hidden), finer),
            ("attn_output", (text.hidden, wide), Q4_K),
            ("ffn_gate", (text.ffn, text.hidden), Q4_K),
            ("ffn_up", (text.ffn, text.hidden), Q4_K),
            ("ffn_down", (text.hidden, text.ffn), finer),
            ("attn_norm", (text.hidden,), F32),
            ("ffn_norm", (text.hidden,), F32),
        ):
            found.append((f"blk.{layer}.{name}", shape, kind))
    return found


def _add(writer: GGUFWriter, name: str, shape: tuple[int, ...], kind: GGMLQuantizationType) -> None:
    block, size = GGML_QUANT_SIZES[kind]
    stored = shape if kind == F32 else quant_shape_to_byte_shape(shape, kind)
    dtype = np.dtype("float32" if kind == F32 else "uint8")
    writer.add_tensor_info(f"{name}.weight", stored, dtype, prod(shape) // block * size, raw_dtype=kind)
