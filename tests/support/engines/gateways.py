"""The command line of a gateway in front of a program, for tests that start one by themselves."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def gateway(
    port: int, kind: str, *flags: str, before: Sequence[str], alias: str = "twin", context: int = 2048
) -> list[str]:
    """`before`: the command line of the engine."""
    own = ("--kind", kind, "--alias", alias, "--port", str(port), "--context", str(context))
    return [sys.executable, "-m", "mscli.engines.serving.gateway", *own, *flags, "--", *before]


def of_gateway(flags: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Flags parted into those of the gateway alone, and all others."""
    at = [number for number, flag in enumerate(flags) if flag == "--images"]
    own = {place for number in at for place in (number, number + 1)}
    users = [flags[number : number + 2] for number, flag in enumerate(flags) if flag == "--users"]
    words = (*(flags[number] for number in sorted(own)), *(word for pair in users for word in pair))
    return words, tuple(flag for number, flag in enumerate(flags) if number not in own)
