"""What of the environment reaches an engine: what is cleared stands in inherited.csv, what the plan sets is in the
engine's Command, and the rest (PATH, proxies, CUDA's libraries, caches) is passed.

A variable that a shell still holds from something else would serve another context, host or model than was planned.
Whoever wants one for an instance puts it into a profile's `env`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from mscli.frozen import frozen

TABLE = Path(__file__).with_name("inherited.csv")


@frozen
class Cleared:
    """Variables that do not reach some engines. `name`: a pattern of the whole name; `why`: what they would do."""

    engines: tuple[str, ...]
    name: str
    why: str


@cache
def cleared() -> tuple[Cleared, ...]:
    """The table."""
    import csv

    with TABLE.open(newline="", encoding="utf-8") as file:
        return tuple(Cleared(tuple(row["engines"].split("|")), row["name"], row["why"]) for row in csv.DictReader(file))


def inherited(engine: str, env: Mapping[str, str]) -> dict[str, str]:
    """The part of `env` that an engine is started under, before what the plan sets."""
    pattern = re.compile("|".join(f"(?:{row.name})" for row in cleared() if engine in row.engines) or r"(?!)")
    return {name: value for name, value in env.items() if not pattern.fullmatch(name)}
