"""A tiny model as llama.cpp reads it: one GGUF file, and the vision encoder in another (mmproj)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from support.tiny_model.gguf import F16, F32, Q8_0, Encoding, Tensor, Value, write_gguf
from support.tiny_model.images import MEAN, STANDARD_DEVIATION
from support.tiny_model.model import TinyModel
from support.tiny_model.tokenizer import BEGIN, END, PAD, SPECIAL_TOKENS, UNKNOWN, printable
from support.tiny_model.weights import NORM_EPSILON, ROPE_THETA, VISION_ROPE_THETA, Layer

ENCODINGS = {"f16": (F16, 1), "q8_0": (Q8_0, 7)}
_MOSTLY_F16 = 1
_TOKEN_NORMAL, _TOKEN_UNKNOWN, _TOKEN_CONTROL = 1, 2, 3

_MATRICES = {
    "query": "attn_q",
    "key": "attn_k",
    "value": "attn_v",
    "gate": "ffn_gate",
    "down": "ffn_down",
    "up": "ffn_up",
}
TEXT_NAMES = {**_MATRICES, "output": "attn_output", "attention_norm": "attn_norm", "ffn_norm": "ffn_norm"}
VISION_NAMES = {**_MATRICES, "output": "attn_out", "attention_norm": "ln1", "ffn_norm": "ln2"}


def title(name: str) -> str:
    """What the file says about itself, which engines and `mscli status` pass on."""
    return f"mscli {name} (scripted stand-in, not a language model)"


def _text_metadata(model: TinyModel, name: str, file_type: int) -> dict[str, Value]:
    shape, tokens = model.shape, model.tokenizer
    kinds = [_TOKEN_UNKNOWN] + [_TOKEN_CONTROL] * (SPECIAL_TOKENS - 1) + [_TOKEN_NORMAL] * len(tokens.vocabulary)
    return {
        "general.architecture": "llama",
        "general.name": title(name),
        "general.license": "apache-2.0",
        "general.file_type": file_type,
        "general.quantization_version": 2,
        "llama.context_length": model.variant.context,
        "llama.embedding_length": shape.hidden,
        "llama.block_count": shape.layers,
        "llama.feed_forward_length": shape.ffn,
        "llama.attention.head_count": shape.heads,
        "llama.attention.head_count_kv": shape.kv_heads,
        "llama.attention.key_length": shape.head_dim,
        "llama.attention.value_length": shape.head_dim,
        "llama.attention.layer_norm_rms_epsilon": NORM_EPSILON,
        "llama.rope.freq_base": ROPE_THETA,
        "llama.rope.dimension_count": shape.head_dim,
        "llama.vocab_size": tokens.size,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "tekken",
        "tokenizer.ggml.tokens": [*tokens.special, *map(printable, tokens.vocabulary)],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": [f"{printable(left)} {printable(right)}" for left, right in tokens.merges],
        "tokenizer.ggml.bos_token_id": BEGIN,
        "tokenizer.ggml.eos_token_id": END,
        "tokenizer.ggml.unknown_token_id": UNKNOWN,
        "tokenizer.ggml.padding_token_id": PAD,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.chat_template": model.chat_template,
    }


def _layer(prefix: str, layer: Layer, names: dict[str, str], encoding: Encoding) -> Iterator[Tensor]:
    """Matrices in `encoding`, norms always in f32."""
    for attribute, name in names.items():
        yield f"{prefix}.{name}.weight", getattr(layer, attribute), F32 if attribute.endswith("_norm") else encoding


def _text_tensors(model: TinyModel, encoding: Encoding) -> Iterator[Tensor]:
    weights = model.weights
    yield "token_embd.weight", weights.embedding, encoding
    yield "output_norm.weight", weights.norm, F32
    yield "output.weight", weights.head, encoding
    for number, layer in enumerate(weights.layers):
        yield from _layer(f"blk.{number}", layer, TEXT_NAMES, encoding)


def _vision_metadata(model: TinyModel, name: str) -> dict[str, Value]:
    assert model.vision is not None
    shape = model.vision
    return {
        "general.architecture": "clip",
        "general.name": title(f"{name} projector"),
        "general.license": "apache-2.0",
        "general.file_type": _MOSTLY_F16,
        "clip.has_vision_encoder": True,
        "clip.projector_type": "pixtral",
        "clip.vision.image_size": shape.image,
        "clip.vision.patch_size": shape.patch,
        "clip.vision.embedding_length": shape.hidden,
        "clip.vision.feed_forward_length": shape.ffn,
        "clip.vision.block_count": shape.layers,
        "clip.vision.projection_dim": model.shape.hidden,
        "clip.vision.attention.head_count": shape.heads,
        "clip.vision.spatial_merge_size": shape.merge,
        "clip.vision.attention.layer_norm_epsilon": NORM_EPSILON,
        "clip.vision.rope.freq_base": VISION_ROPE_THETA,
        "clip.use_silu": True,
        "clip.vision.image_mean": list(MEAN),
        "clip.vision.image_std": list(STANDARD_DEVIATION),
    }


def _vision_tensors(model: TinyModel) -> Iterator[Tensor]:
    vision = model.weights.vision
    assert vision is not None
    yield "v.patch_embd.weight", vision.patch, F16
    yield "v.pre_ln.weight", vision.pre_norm, F32
    for number, layer in enumerate(vision.layers):
        yield from _layer(f"v.blk.{number}", layer, VISION_NAMES, F16)
    yield "mm.input_norm.weight", vision.projector_norm, F32
    yield "mm.patch_merger.weight", vision.merge, F16
    yield "mm.1.weight", vision.project_in, F16
    yield "mm.2.weight", vision.project_out, F16
    yield "v.token_embd.img_break", vision.image_break, F32


def write_gguf_text(folder: Path, model: TinyModel, name: str, encoding: str) -> Path:
    """`<name>-<encoding>.gguf`: the language model. `encoding`: f16 or q8_0."""
    tensor_encoding, file_type = ENCODINGS[encoding]
    path = folder / f"{name}-{encoding}.gguf"
    write_gguf(path, _text_metadata(model, name, file_type), _text_tensors(model, tensor_encoding))
    return path


def write_gguf_projector(folder: Path, model: TinyModel, name: str) -> Path:
    """`mmproj-<name>-f16.gguf`: the vision encoder and its projector."""
    path = folder / f"mmproj-{name}-f16.gguf"
    write_gguf(path, _vision_metadata(model, name), _vision_tensors(model))
    return path
