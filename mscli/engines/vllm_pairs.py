"""Versions of packages that break vLLM when they come together: known before a start, with the pin that mends it."""

from __future__ import annotations

from dataclasses import dataclass

from mscli.catalog.model import Model
from mscli.engines.engine import Installation
from mscli.planning.request import parse_version

Version = tuple[int, ...]


@dataclass(frozen=True)
class Pair:
    """vLLM from `first` to before `end`, with `package` from `since` on, breaks models released from `released` on.

    `what`: what a user would see; `pin`: the requirement that goes well.
    """

    first: Version
    end: Version
    package: str
    since: Version
    released: str
    what: str
    pin: str


PAIRS = (
    # Tokenizers from v11 on (Magistral, Small 3.2, Devstral 2507) take a grammar for which 1.13 asks one argument more.
    Pair(
        first=(0, 20),
        end=(0, 33),
        package="mistral_common",
        since=(1, 13),
        released="2025-06",
        what="every chat is refused with HTTP 400 (get_lark_from_jinja() lacks 'force_tool_names')",
        pin="mistral_common==1.12.0",
    ),
)


def pins(version: str | None) -> tuple[str, ...]:
    """The requirements to install beside this version of vLLM (None: the newest known to break)."""
    known = parse_version(version)
    return tuple(pair.pin for pair in PAIRS if known is None or pair.first <= known < pair.end)


def broken(found: Installation, model: Model | None = None) -> Pair | None:
    """The pair that this installation has, and that this model (None: some model) would meet."""
    version = parse_version(found.version)
    for pair in PAIRS:
        beside = parse_version(found.beside.get(pair.package))
        meets = model is None or model.released >= pair.released
        if version and beside and meets and pair.first <= version < pair.end and beside >= pair.since:
            return pair
    return None
