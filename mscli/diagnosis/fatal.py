"""Lines of a log after which a start does not come to a good end."""

from __future__ import annotations

from mscli.diagnosis.causes import any_pattern
from mscli.diagnosis.matching import compiled


def is_fatal(line: str) -> bool:
    """Whether no engine recovers from what the line says."""
    return bool(compiled(any_pattern("fatal")).search(line.encode(errors="replace")))
