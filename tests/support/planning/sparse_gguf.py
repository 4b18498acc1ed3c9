"""GGUF files in the exact shape of the 24B, with Q4_K_M's tensor types and holes instead of weights.

llama.cpp reads the header and projects its buffers from it; the 14 GB are never written nor read.
"""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter, quant_shape_to_byte_shape

from mscli.catalog.model import Text, Vision

Q4_K, Q6_K, F32 = GGMLQuantizationType.Q4_K, GGMLQuantizationType.Q6_K, GGMLQuantizationType.F32


def write_q4_k_m(path: Path, text: Text, context: int) -> Path:
    """A text model of `text`'s sizes whose file is one large hole behind the header."""
    writer = GGUFWriter(str(path), "llama")
    _metadata(writer, text, context)
    for name, shape, kind in _tensors(text):
        _add(writer, name, shape, kind)
    return _finish(writer, path)


def write_projector(path: Path, vision: Vision, hidden: int) -> Path:
    """A Pixtral projector of `vision`'s sizes for a text model of `hidden`, as a hole behind a header."""
    writer = GGUFWriter(str(path), "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "pixtral")
    for key, value in (
        ("image_size", vision.image_size), ("patch_size", vision.patch), ("embedding_length", vision.hidden),
        ("feed_forward_length", vision.ffn), ("block_count", vision.layers), ("projection_dim", hidden),
        ("attention.head_count", vision.heads), ("spatial_merge_size", vision.spatial_merge),
    ):  # fmt: skip
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_float32("clip.vision.rope.freq_base", 10000.0)
    writer.add_bool("clip.use_silu", True)
    writer.add_array("clip.vision.image_mean", [0.48, 0.46, 0.41])
    writer.add_array("clip.vision.image_std", [0.27, 0.26, 0.28])
    for name, shape in _vision_tensors(vision, hidden):
        kind = GGMLQuantizationType.F32 if len(shape) == 1 else GGMLQuantizationType.F16
        dtype = np.dtype("float32" if len(shape) == 1 else "float16")
        writer.add_tensor_info(name, shape, dtype, prod(shape) * dtype.itemsize, raw_dtype=kind)
    return _finish(writer, path)


def _vision_tensors(vision: Vision, hidden: int) -> list[tuple[str, tuple[int, ...]]]:
    wide, ffn = vision.hidden, vision.ffn
    found: list[tuple[str, tuple[int, ...]]] = [
        ("v.patch_embd.weight", (wide, 3, vision.patch, vision.patch)),
        ("v.pre_ln.weight", (wide,)),
        ("mm.input_norm.weight", (wide,)),
        ("mm.patch_merger.weight", (wide, wide * vision.spatial_merge**2)),
        ("mm.1.weight", (hidden, wide)),
        ("mm.2.weight", (hidden, hidden)),
        ("v.token_embd.img_break", (hidden,)),
    ]
    for layer in range(vision.layers):
        square = [(f"v.blk.{layer}.attn_{name}.weight", (wide, wide)) for name in ("q", "k", "v", "out")]
        norms = [(f"v.blk.{layer}.{name}.weight", (wide,)) for name in ("ln1", "ln2")]
        feed = [(f"v.blk.{layer}.ffn_{name}.weight", (ffn, wide)) for name in ("gate", "up")]
        found += [*square, *norms, *feed, (f"v.blk.{layer}.ffn_down.weight", (wide, ffn))]
    return found


def _finish(writer: GGUFWriter, path: Path) -> Path:
    """Write the header and make the file as long as its tensors would be."""
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
