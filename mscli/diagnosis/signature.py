"""Signs: patterns of log lines that show one cause, as data, and how a table of them is read.

An engine's own table is ordered: the first sign that is seen names the cause of a failed start. The doctor weighs the
signs of all tables against each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Sign:
    """Lines that show one cause. `summary` and `remedy` may name groups of the pattern.

    `beside`: a pattern that some line of the log must match as well; `unless`: one that no line may match.
    `strength`, 0 to 1: how often the cause is this one where the sign is seen.
    """

    code: str
    pattern: str
    summary: str = ""
    remedy: str = ""
    beside: str = ""
    strength: float = 0.8
    unless: str = ""


@dataclass(frozen=True)
class Seen:
    """A sign found in a log, and the number of the line that shows it."""

    sign: Sign
    match: re.Match[str]
    line: int

    @property
    def summary(self) -> str:
        """The sign's summary with what the line says in place of the groups' names."""
        return self.sign.summary.format(**self.match.groupdict(""))

    @property
    def remedy(self) -> str:
        """The sign's remedy with what the line says in place of the groups' names."""
        return self.sign.remedy.format(**self.match.groupdict(""))


@lru_cache(maxsize=4096)
def compiled(pattern: str) -> re.Pattern[str]:
    """The compiled pattern. Kept for ever: Python's own cache is smaller than the tables."""
    return re.compile(pattern)


def first(signs: Iterable[Sign], lines: Sequence[str]) -> Seen | None:
    """The first sign, in the table's order, that is seen in the lines; None where none is."""
    return next((seen for sign in signs if (seen := _seen(sign, lines))), None)


def _seen(sign: Sign, lines: Sequence[str]) -> Seen | None:
    pattern = compiled(sign.pattern)
    for number, line in enumerate(lines):
        if match := pattern.search(line):
            wanted = not sign.beside or _anywhere(sign.beside, lines)
            unwanted = bool(sign.unless) and _anywhere(sign.unless, lines)
            return Seen(sign, match, number) if wanted and not unwanted else None
    return None


def _anywhere(pattern: str, lines: Sequence[str]) -> bool:
    return any(map(compiled(pattern).search, lines))
