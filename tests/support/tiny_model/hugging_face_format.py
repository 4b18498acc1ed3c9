"""A tiny model in Hugging Face's format: config.json, model.safetensors, tokenizer.json and what belongs to them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from support.tiny_model.images import MEAN, STANDARD_DEVIATION
from support.tiny_model.model import TinyModel
from support.tiny_model.safetensors import write_safetensors
from support.tiny_model.tokenizer import BEGIN, END, IMAGE, PAD, PATTERN, printable
from support.tiny_model.weights import (
    NORM_EPSILON,
    ROPE_THETA,
    VISION_ROPE_THETA,
    Array,
    Layer,
    VisionShape,
    VisionWeights,
)

TEXT_NAMES = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "output": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
VISION_NAMES = {
    "query": "attention.q_proj",
    "key": "attention.k_proj",
    "value": "attention.v_proj",
    "output": "attention.o_proj",
    "gate": "feed_forward.gate_proj",
    "up": "feed_forward.up_proj",
    "down": "feed_forward.down_proj",
    "attention_norm": "attention_norm",
    "ffn_norm": "ffn_norm",
}
IMAGE_TOKENS = {"image_token": "[IMG]", "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]"}
NAMED_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def _text_config(model: TinyModel) -> dict[str, object]:
    shape = model.shape
    return {
        "model_type": "mistral",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": NORM_EPSILON,
        "rope_theta": ROPE_THETA,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
        "max_position_embeddings": model.variant.context,
        "vocab_size": model.tokenizer.size,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "attention_dropout": 0.0,
        "bos_token_id": BEGIN,
        "eos_token_id": END,
        "pad_token_id": PAD,
    }


def _vision_config(vision: VisionShape) -> dict[str, object]:
    return {
        "model_type": "pixtral",
        "hidden_size": vision.hidden,
        "intermediate_size": vision.ffn,
        "num_hidden_layers": vision.layers,
        "num_attention_heads": vision.heads,
        "head_dim": vision.hidden // vision.heads,
        "patch_size": vision.patch,
        "image_size": vision.image,
        "num_channels": 3,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "rope_theta": VISION_ROPE_THETA,
        "rope_parameters": {"rope_type": "default", "rope_theta": VISION_ROPE_THETA},
    }


def _config(model: TinyModel) -> dict[str, object]:
    stored = {"dtype": "bfloat16", "torch_dtype": "bfloat16"}
    if model.vision is None:
        return {"architectures": ["MistralForCausalLM"], **stored, **_text_config(model)}
    return {
        "architectures": ["Mistral3ForConditionalGeneration"],
        "model_type": "mistral3",
        **stored,
        "image_token_index": IMAGE,
        "image_token_id": IMAGE,
        "spatial_merge_size": model.vision.merge,
        "multimodal_projector_bias": False,
        "projector_hidden_act": "gelu",
        "vision_feature_layer": -1,
        "text_config": _text_config(model),
        "vision_config": _vision_config(model.vision),
    }


def _halves(matrix: Array, heads: int) -> Array:
    """From rotation of neighbouring rows (Mistral, llama.cpp) to rotation of a head's two halves (Hugging Face)."""
    rows, columns = matrix.shape
    pairs = matrix.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.transpose(0, 2, 1, 3).reshape(rows, columns)


def _layer(prefix: str, layer: Layer, names: dict[str, str]) -> dict[str, Array]:
    return {f"{prefix}.{name}.weight": getattr(layer, attribute) for attribute, name in names.items()}


def _text_tensors(model: TinyModel, prefix: str) -> Iterator[tuple[str, Array]]:
    weights, shape = model.weights, model.shape
    yield f"{prefix}model.embed_tokens.weight", weights.embedding
    yield f"{prefix}model.norm.weight", weights.norm
    yield f"{prefix}lm_head.weight", weights.head
    for number, layer in enumerate(weights.layers):
        here = f"{prefix}model.layers.{number}"
        yield from {
            **_layer(here, layer, TEXT_NAMES),
            f"{here}.self_attn.q_proj.weight": _halves(layer.query, shape.heads),
            f"{here}.self_attn.k_proj.weight": _halves(layer.key, shape.kv_heads),
        }.items()


def _vision_tensors(vision: VisionWeights) -> Iterator[tuple[str, Array]]:
    yield "vision_tower.patch_conv.weight", vision.patch
    yield "vision_tower.ln_pre.weight", vision.pre_norm
    for number, layer in enumerate(vision.layers):
        yield from _layer(f"vision_tower.transformer.layers.{number}", layer, VISION_NAMES).items()
    yield "multi_modal_projector.norm.weight", vision.projector_norm
    yield "multi_modal_projector.patch_merger.merging_layer.weight", vision.merge
    yield "multi_modal_projector.linear_1.weight", vision.project_in
    yield "multi_modal_projector.linear_2.weight", vision.project_out


def _tensors(model: TinyModel) -> Iterator[tuple[str, Array]]:
    vision = model.weights.vision
    yield from _text_tensors(model, "language_model." if vision else "")
    if vision:
        yield from _vision_tensors(vision)


def _tokenizer(model: TinyModel) -> dict[str, object]:
    tokens = model.tokenizer
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False}
    begin = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": number}} for number, name in enumerate("AB"))
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, "content": name, **plain} for number, name in enumerate(tokens.special)],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [begin, first],
            "pair": [begin, first, {"SpecialToken": {"id": "<s>", "type_id": 1}}, second],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [BEGIN], "tokens": ["<s>"]}},
        },
        "decoder": {**byte_level, "add_prefix_space": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": {token if isinstance(token, str) else printable(token): i for token, i in tokens.ids.items()},
            "merges": [[printable(left), printable(right)] for left, right in tokens.merges],
        },
    }


def _tokenizer_config(model: TinyModel) -> dict[str, object]:
    image = {**IMAGE_TOKENS, "processor_class": "PixtralProcessor"} if model.vision else {}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **NAMED_TOKENS,
        "model_max_length": model.variant.context,
        "clean_up_tokenization_spaces": False,
        "chat_template": model.chat_template,
        **image,
    }


def _image_files(vision: VisionShape) -> dict[str, dict[str, object]]:
    preprocessor: dict[str, object] = {
        "image_processor_type": "PixtralImageProcessor",
        "processor_class": "PixtralProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"longest_edge": vision.image},
        "patch_size": {"height": vision.patch, "width": vision.patch},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": MEAN,
        "image_std": STANDARD_DEVIATION,
    }
    sizes = {"patch_size": vision.patch, "spatial_merge_size": vision.merge}
    processor: dict[str, object] = {"processor_class": "PixtralProcessor", **IMAGE_TOKENS, **sizes}
    return {"preprocessor_config.json": preprocessor, "processor_config.json": processor}


def write_hugging_face(folder: Path, model: TinyModel) -> None:
    """Writes all files of a Hub repository in this format."""
    ends = {"bos_token_id": BEGIN, "eos_token_id": END, "pad_token_id": PAD}
    files: dict[str, dict[str, object]] = {
        "config.json": _config(model),
        "generation_config.json": {**ends, "temperature": 0.15, "do_sample": True},
        "tokenizer.json": _tokenizer(model),
        "tokenizer_config.json": _tokenizer_config(model),
        "special_tokens_map.json": {**NAMED_TOKENS},
    }
    if model.vision:
        files |= _image_files(model.vision)
    for name, content in files.items():
        indent = None if name == "tokenizer.json" else 2
        (folder / name).write_text(json.dumps(content, indent=indent, ensure_ascii=False), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(model.chat_template)
    write_safetensors(folder / "model.safetensors", dict(_tensors(model)))
