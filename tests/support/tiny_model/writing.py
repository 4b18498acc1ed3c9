"""The files of a tiny model, in the formats asked for."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from support.tiny_model.gguf_format import ENCODINGS, write_gguf_projector, write_gguf_text
from support.tiny_model.hugging_face_format import write_hugging_face
from support.tiny_model.mistral_format import write_mistral
from support.tiny_model.model import TinyModel

FORMATS = ("mistral", "hugging-face", *ENCODINGS)


def write(folder: Path, model: TinyModel, formats: Collection[str] = FORMATS, name: str | None = None) -> list[Path]:
    """Writes the model like a Hub repository: all formats side by side, GGUF files named after `name` or the variant.

    With a GGUF format (f16, q8_0) comes the projector of a model that sees. Returns the files of the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = name or model.variant.name
    if "mistral" in formats:
        write_mistral(folder, model)
    if "hugging-face" in formats:
        write_hugging_face(folder, model)
    encodings = [encoding for encoding in ENCODINGS if encoding in formats]
    for encoding in encodings:
        write_gguf_text(folder, model, name, encoding)
    if encodings and model.vision:
        write_gguf_projector(folder, model, name)
    return sorted(folder.iterdir())
