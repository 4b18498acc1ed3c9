"""How the wordings of a sign are searched for in a whole log quickly.

A sign is an alternation of many wordings, of which a log holds none or few. Nearly every wording has a piece that must
stand in a text for it to match at all, and looking for a fixed piece is a hundred times faster than matching. So only
the wordings whose piece is there are compiled and searched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

_SHORTEST = 3
_BLANKS = re.compile(r" ([?*+]?)")
_GROUP = re.compile(r"\((?:\?:)?(?!\?)")  # one that takes letters: no look-around
_MAYBE = re.compile(r"[?*]|\{0?,|\{0\}")
_QUANTIFIED = re.compile(r"[+{]")


@lru_cache(maxsize=4096)
def spread(pattern: str) -> re.Pattern[str]:
    """The pattern compiled so that its blanks match line breaks too (terminals wrap) and letters match in any case."""
    wide = _BLANKS.sub(lambda blank: r"\s*" if blank[1] in ("?", "*") and blank[1] else r"\s+", pattern)
    return re.compile(wide, re.IGNORECASE | re.MULTILINE)


def worth_searching(pattern: str, lowered: str) -> str | None:
    """The wordings of a pattern that may match a text, as a pattern; None where none may. `lowered`: the text in lower
    case."""
    kept = [wording for wording, pieces in _pieces(pattern) if not pieces or any(piece in lowered for piece in pieces)]
    return "|".join(kept) or None


@lru_cache(maxsize=4096)
def _pieces(pattern: str) -> tuple[tuple[str, frozenset[str]], ...]:
    return tuple((wording, fixed_pieces(wording)) for wording in alternatives(pattern))


def alternatives(pattern: str) -> Iterator[str]:
    """The parts of a pattern between the bars that stand outside of every bracket."""
    begin = at = 0
    for part in _parts(pattern):
        if part == "|":
            yield pattern[begin:at]
            begin = at + 1
        at += len(part)
    yield pattern[begin:]


def fixed_pieces(wording: str) -> frozenset[str]:
    """Pieces in lower case of which one stands in every text that the wording matches; none where there are no such.

    `wording`: a pattern without bars outside of brackets. Its letters that stand for themselves make such a piece, and
    so does a group of which each alternative has one; the longest is taken.
    """
    found, run = [frozenset[str]()], ""
    parts = [*_parts(wording), ""]
    for part, after in pairwise(parts):
        if _fixed(part) and not _MAYBE.match(after):
            run += part[-1].lower()
        else:
            found.append(_long_enough(run))
            run = ""
        if (group := _GROUP.match(part)) and not _MAYBE.match(after):
            found.append(_of_every(alternatives(part[group.end() : -1])))
        if _QUANTIFIED.match(after) and run:
            found.append(_long_enough(run))
            run = ""
    found.append(_long_enough(run))
    return max(found, key=lambda pieces: min(map(len, pieces), default=0))


def _long_enough(run: str) -> frozenset[str]:
    return frozenset([run]) if len(run) >= _SHORTEST and run.isascii() else frozenset()


def _of_every(wordings: Iterator[str]) -> frozenset[str]:
    each = [fixed_pieces(wording) for wording in wordings]
    return frozenset[str]().union(*each) if all(each) else frozenset()


def _fixed(part: str) -> bool:
    """Whether a part of a pattern stands for itself."""
    if part.startswith("\\"):
        return not part[-1].isalnum()
    return len(part) == 1 and part not in "^$.?*+|{} "


def _parts(pattern: str) -> Iterator[str]:
    """A pattern in parts: a letter, an escaped one, a class `[...]`, a group `(...)`, a quantifier `{...}`."""
    at = 0
    while at < len(pattern):
        end = _end(pattern, at)
        yield pattern[at:end]
        at = end


def _end(pattern: str, at: int) -> int:
    """Where the part that begins at a place ends."""
    letter = pattern[at]
    if letter == "\\":
        return at + 2
    if letter == "{":
        return pattern.index("}", at) + 1
    if letter not in "([":
        return at + 1
    inside = at + 1
    if letter == "[":
        inside += pattern[inside] == "^"
        inside += pattern[inside] == "]"
    while pattern[inside] != {"(": ")", "[": "]"}[letter]:
        inside = _end(pattern, inside) if letter == "(" or pattern[inside] == "\\" else inside + 1
    return inside + 1
