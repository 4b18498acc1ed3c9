"""Weights as an engine is given them: the value in which every way of getting weights ends."""

from __future__ import annotations

from mscli.frozen import frozen


@frozen
class WeightFiles:
    """Weights on this machine. `model`: the file or folder the engine is given (for Ollama the tag)."""

    model: str
    projector: str | None
    bytes_on_disk: int
