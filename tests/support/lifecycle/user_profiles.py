"""Profiles and models of a user's own, as he would write them."""

from __future__ import annotations

from pathlib import Path

from support.tiny_twin import described

PROFILE = """\
title: A profile of the user's own
engine: llama.cpp
model: {model}
variant: q8_0
device: cpu
context: {{floor: {floor}, target: {target}}}
kv_types: {kv_types}
images: 0
automatic: false
options: {options}
"""
# The catalogue entry is that of a smaller model, so that the plan lets the 24B's KV cache through.
WIDE = described("A wide model", """\
variants:
  q8_0:
    format: gguf
    quantisation: q8_0
    weights_bytes: 2302976
    download_bytes: 2302976
    bytes_source: made for a test
    source: {kind: hub, repository: tests/wide, files: ["text-q8_0.gguf"]}
""", released="2026-11-20", sees=False)  # fmt: skip


def write(
    home: Path,
    name: str = "mine",
    *,
    kv_types: str = "[f16]",
    options: str = "{}",
    floor: int = 1024,
    target: int = 4096,
    model: str = "rehearsal",
) -> None:
    """Writes the profile `name` for llama.cpp."""
    folder = home / "config" / "profiles"
    (folder / "models").mkdir(parents=True, exist_ok=True)
    text = PROFILE.format(model=model, floor=floor, target=target, kv_types=kv_types, options=options)
    (folder / f"{name}.yaml").write_text(text)
    (folder / "models" / "wide.yaml").write_text(WIDE)
