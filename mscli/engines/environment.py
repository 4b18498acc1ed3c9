"""What an engine runs in: what of the environment reaches it, and its container, where it has one.

Of the environment: what is cleared stands in inherited.csv, what the plan sets is in the engine's Command, and the rest
(PATH, proxies, CUDA's libraries, caches) is passed.

A variable that a shell still holds from something else would serve another context, host or model than was planned.
Whoever wants one for an instance puts it into a profile's `env`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from mscli.frozen import frozen


@frozen
class Contained:
    """The container in which an engine runs; the process that mscli spawns is only its client.

    `client`: how the client is called; `env`: what tells it which container engine to speak to, remembered because
    `mscli down` may be typed in another shell. `name`: the container's; `cidfile`: where the client writes its id.
    """

    client: tuple[str, ...]
    env: Mapping[str, str]
    name: str
    cidfile: Path
    image: str


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
