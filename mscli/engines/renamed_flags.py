"""Flags that an engine's newer releases refuse under their old name, and the name under which they take them.

Only what is the same thing under another name stands here: the value stays as it was given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Version = tuple[int, ...]

VLLM_ENGINES = ("vllm", "vllm-docker")


@dataclass(frozen=True)
class Renamed:
    """`old` is refused from version `since` on, as far as the releases that were read tell; `new` is taken there."""

    old: str
    new: str
    since: Version


# Read in the parsers of 0.10.2 (old names) and of 0.22.1 and 0.32.0 (new ones). In between some releases take both.
VLLM: tuple[Renamed, ...] = (
    Renamed("cuda-graph-sizes", "cudagraph-capture-sizes", (0, 22, 1)),
    Renamed("override-pooler-config", "pooler-config", (0, 22, 1)),
    Renamed("disable-log-requests", "no-enable-log-requests", (0, 22, 1)),
)


def renamed(engine: str, version: str | None, options: Iterable[str]) -> Mapping[str, str]:
    """Of a profile's `options`, those that this engine refuses as they are spelt, each with the name it takes.

    `version` None: not known, then only what no version takes.
    """
    return {option: new for option in options if (new := _new_name(engine, version, option)) and new != option}


def _new_name(engine: str, version: str | None, option: str) -> str | None:
    if engine == "llama.cpp":  # the wheel's server takes hyphens alone, llama-server both
        return option.replace("_", "-")
    if engine not in VLLM_ENGINES:
        return None
    numbers, flag = _numbers(version), option.replace("_", "-")  # vLLM's parser makes no difference between the two
    return next((each.new for each in VLLM if each.old == flag and numbers and numbers >= each.since), None)


def _numbers(version: str | None) -> Version | None:
    found = re.match(r"v?(\d+(?:\.\d+)*)", version or "")
    return tuple(map(int, found[1].split("."))) if found else None
