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


def shared(flags: Sequence[str]) -> tuple[str, ...]:
    """Those of a worker's flags that its gateway takes, too."""
    at = [number for number, flag in enumerate(flags) if flag in ("--images", "--users")]
    return tuple(word for number in at for word in flags[number : number + 2])
