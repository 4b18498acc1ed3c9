"""What a catalogue says of the tiny models that tests/support/tiny_model makes, as a user would write it."""

from __future__ import annotations

TEXT = """\
  text: {parameters: 2163968, linear_parameters: 1179648, layers: 2, hidden: 256, heads: 4, kv_heads: 2, head_dim: 64,
    ffn: 512, vocabulary: 1920}
"""
VISION = """\
  vision: {tower_parameters: 120128, projector_parameters: 98368, layers: 2, hidden: 64, heads: 2, ffn: 128, patch: 14,
    image_size: 224, spatial_merge: 2}
"""


def described(title: str, rest: str, released: str = "2025-03-17", sees: bool = True) -> str:
    """A model's entry: what is the same of all of them, and `rest`, from the capabilities on to the variants."""
    return f"""\
title: {title} (scripted stand-in)
released: "{released}"
license: Apache-2.0
stand_in: true
architecture:
{TEXT}{VISION if sees else ""}context_limit: 131072
{rest}"""
