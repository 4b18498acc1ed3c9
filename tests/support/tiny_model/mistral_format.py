"""A tiny model in Mistral's own format: params.json, consolidated.safetensors, tekken.json."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

from support.tiny_model.model import TinyModel
from support.tiny_model.safetensors import write_safetensors
from support.tiny_model.tokenizer import IMAGE, IMAGE_BREAK, IMAGE_END, PATTERN, SPECIAL_TOKENS
from support.tiny_model.weights import NORM_EPSILON, ROPE_THETA, VISION_ROPE_THETA, Array, Layer, VisionWeights

LAYER_NAMES = {
    "query": "attention.wq",
    "key": "attention.wk",
    "value": "attention.wv",
    "output": "attention.wo",
    "gate": "feed_forward.w1",
    "down": "feed_forward.w2",
    "up": "feed_forward.w3",
    "attention_norm": "attention_norm",
    "ffn_norm": "ffn_norm",
}


def _params(model: TinyModel) -> dict[str, object]:
    shape = model.shape
    params: dict[str, object] = {
        "dim": shape.hidden,
        "n_layers": shape.layers,
        "head_dim": shape.head_dim,
        "hidden_dim": shape.ffn,
        "n_heads": shape.heads,
        "n_kv_heads": shape.kv_heads,
        "rope_theta": ROPE_THETA,
        "norm_eps": NORM_EPSILON,
        "vocab_size": model.tokenizer.size,
        "max_position_embeddings": model.variant.context,
    }
    if vision := model.vision:
        params["vision_encoder"] = {
            "hidden_size": vision.hidden,
            "num_channels": 3,
            "image_size": vision.image,
            "max_image_size": vision.image,
            "patch_size": vision.patch,
            "rope_theta": VISION_ROPE_THETA,
            "intermediate_size": vision.ffn,
            "num_hidden_layers": vision.layers,
            "num_attention_heads": vision.heads,
            "adapter_bias": False,
            "mm_projector_id": "patch_merge",
            "spatial_merge_size": vision.merge,
            "add_pre_mm_projector_layer_norm": True,
            "image_token_id": IMAGE,
            "image_break_token_id": IMAGE_BREAK,
            "image_end_token_id": IMAGE_END,
        }
    return params


def _text(token: bytes) -> str | None:
    """A token's text, or None when it is only part of a character."""
    try:
        return token.decode()
    except UnicodeDecodeError:
        return None


def _tekken(model: TinyModel) -> dict[str, object]:
    tokens = model.tokenizer
    tekken: dict[str, object] = {
        "vocab": [
            {"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": _text(token)}
            for rank, token in enumerate(tokens.vocabulary)
        ],
        "special_tokens": [
            {"rank": rank, "token_str": name, "is_control": True} for rank, name in enumerate(tokens.special)
        ],
        "config": {
            "pattern": PATTERN,
            "num_vocab_tokens": len(tokens.vocabulary),
            "default_vocab_size": tokens.size,
            "default_num_special_tokens": SPECIAL_TOKENS,
            "version": tokens.version,
        },
        "version": 1,
        "type": "Tekken",
    }
    if vision := model.vision:
        image = {"image_patch_size": vision.patch, "max_image_size": vision.image, "spatial_merge_size": vision.merge}
        tekken["image"] = image
    return tekken


def _layer(prefix: str, layer: Layer) -> Iterator[tuple[str, Array]]:
    for attribute, name in LAYER_NAMES.items():
        yield f"{prefix}.{name}.weight", getattr(layer, attribute)


def _vision_tensors(vision: VisionWeights) -> Iterator[tuple[str, Array]]:
    yield "vision_encoder.patch_conv.weight", vision.patch
    yield "vision_encoder.ln_pre.weight", vision.pre_norm
    for number, layer in enumerate(vision.layers):
        yield from _layer(f"vision_encoder.transformer.layers.{number}", layer)
    yield "pre_mm_projector_norm.weight", vision.projector_norm
    yield "patch_merger.merging_layer.weight", vision.merge
    yield "vision_language_adapter.w_in.weight", vision.project_in
    yield "vision_language_adapter.w_out.weight", vision.project_out


def _tensors(model: TinyModel) -> Iterator[tuple[str, Array]]:
    weights = model.weights
    yield "tok_embeddings.weight", weights.embedding
    yield "norm.weight", weights.norm
    yield "output.weight", weights.head
    for number, layer in enumerate(weights.layers):
        yield from _layer(f"layers.{number}", layer)
    if weights.vision:
        yield from _vision_tensors(weights.vision)


def write_mistral(folder: Path, model: TinyModel) -> None:
    """Writes the three files."""
    (folder / "params.json").write_text(json.dumps(_params(model), indent=2))
    (folder / "tekken.json").write_text(json.dumps(_tekken(model)))
    write_safetensors(folder / "consolidated.safetensors", dict(_tensors(model)))
