"""Tiny scripted models for tests, made when first asked for and shared by every worker of a run."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.tiny_model.model import tiny_model as build
from support.tiny_model.writing import write


@dataclass(frozen=True)
class TinyFiles:
    """A folder of model files; `gguf` and `projector` are there for GGUF formats only."""

    folder: Path

    @property
    def gguf(self) -> Path:
        """The language model."""
        return next(path for path in self.folder.glob("*.gguf") if not path.name.startswith("mmproj-"))

    @property
    def projector(self) -> Path | None:
        """The image projector, or None for a text model."""
        return next(self.folder.glob("mmproj-*.gguf"), None)


TinyModels = Callable[..., TinyFiles]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    """A function: variant, shape and formats -> the files of that model.

    Variants: small31 (sees images), text, magistral2506 (thinks in text), magistral (thinks in tokens). Shapes: tiny,
    kv24b (the KV cache of a 24B model, 62 MB). Formats: q8_0, f16, mistral, hugging-face.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tiny-models"

    def made(variant: str = "small31", shape: str = "tiny", formats: tuple[str, ...] = ("q8_0",)) -> TinyFiles:
        shared.mkdir(exist_ok=True)
        folder = shared / "-".join([variant, shape, *formats])
        with (shared / f"{folder.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                unfinished = folder.with_suffix(".unfinished")
                write(unfinished, build(variant, shape), formats)
                unfinished.rename(folder)
        return TinyFiles(folder)

    return made
