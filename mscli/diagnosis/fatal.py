"""Lines of a log after which a start does not come to a good end."""

from __future__ import annotations

from functools import lru_cache

from mscli.diagnosis.causes import read_data
from mscli.diagnosis.matching import compiled


def is_fatal(line: str) -> bool:
    """Whether no engine recovers from what the line says."""
    return bool(compiled(_patterns()).search(line.encode(errors="replace")))


@lru_cache(maxsize=1)
def _patterns() -> str:
    return "|".join(pattern for row in read_data("fatal") for pattern in row["patterns"])
