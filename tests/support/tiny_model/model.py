"""A tiny model as one value, before it is written in any format."""

from __future__ import annotations

from dataclasses import dataclass

from support.tiny_model.chat_template import chat_template
from support.tiny_model.script import VARIANTS, Variant, script
from support.tiny_model.tokenizer import Tokenizer, tokenizer
from support.tiny_model.weights import SHAPES, TextShape, VisionShape, Weights, weights

SEED = 7


@dataclass(frozen=True)
class TinyModel:
    """`vision` None: text only."""

    variant: Variant
    shape: TextShape
    vision: VisionShape | None
    tokenizer: Tokenizer
    weights: Weights
    chat_template: str


def tiny_model(variant: str, shape: str = "tiny", seed: int = SEED) -> TinyModel:
    """The model of this variant and shape. The same seed gives the same numbers. Raises KeyError for unknown names."""
    kind, sizes = VARIANTS[variant], SHAPES[shape]
    lines = script(kind)
    tokens = tokenizer(kind.tokenizer_version, lines.pieces)
    vision = VisionShape() if kind.vision else None
    template = chat_template(kind.tool_syntax)
    return TinyModel(kind, sizes, vision, tokens, weights(sizes, vision, lines, tokens, seed), template)
