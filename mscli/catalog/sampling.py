"""How tokens are drawn. A module of its own: every chat needs it, and the types of models take long to import."""

from __future__ import annotations

from mscli.frozen import frozen


@frozen
class Sampling:
    """The sampling its authors recommend; None leaves the engine's default."""

    temperature: float | None
    top_p: float | None
    max_tokens: int | None
