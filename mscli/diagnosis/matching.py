"""Many patterns searched in one text, in time that grows with the text's length and with nothing else.

google-re2 first looks for the fixed pieces of all patterns in one pass and then only for the patterns whose pieces are
there. It has no wheel for musl; there Python's own `re` takes its place, which can need very long for a line made for
it: lines are cut, and patterns that it does not reach in time are left out.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

from mscli.frozen import frozen

_BLANKS = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]| ([?*+]?)")
_ACROSS = re.compile(r"\\n|\\z")  # in patterns that may match any number of lines
# Lines that are searched together, and by how many such groups overlap: a message that a terminal wrapped lies in one.
_GROUP, _OVERLAP = 10, 2
_LONGEST = 400  # bytes of a line that `re` looks at
_DEADLINE_S = 20.0


def spread(pattern: str) -> str:
    """The pattern with blanks that match line breaks too (terminals wrap) and letters that match in any case."""
    return f"(?im){_BLANKS.sub(_wide, pattern)}"


def _wide(part: re.Match[str]) -> str:
    """A blank that any white space matches; in a class such as `[- ]` it stands for one, elsewhere for one or more."""
    if part[1] is None:
        return part[0].replace(" ", r"\s") if part[0].startswith("[") else part[0]
    return r"\s*" if part[1] in ("?", "*") and part[1] else r"\s+"


@frozen
class Match:
    """Where a pattern matched, in bytes of the text, and what its named groups hold."""

    begin: int
    end: int
    words: Mapping[str, str]


def matches(pattern: str, text: bytes, said: bytes) -> Iterator[Match]:
    """The matches of one pattern, from the first on; `said`: as long as the text, and where their words are read."""
    groups = compiled(pattern).groupindex
    for found in compiled(pattern).finditer(text):
        places = {name: found.span(number) for name, number in groups.items()}
        words = {_text(name): _text(said[max(begin, 0) : max(end, 0)]) for name, (begin, end) in places.items()}
        yield Match(found.start(), found.end(), words)


@lru_cache(maxsize=4096)
def compiled(pattern: str) -> Any:
    """The pattern, to be searched for in bytes. Raises re2.error or re.error for one that is not well formed."""
    wide, re2 = spread(pattern), _re2()
    if re2 is None:
        return re.compile(wide.replace(r"\z", r"\Z").encode())
    return re2.compile(wide.encode())


class Patterns:
    """Patterns in RE2's syntax of which those are wanted that match somewhere. Compiled at the first search."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(patterns)

    def present(self, lines: Sequence[bytes]) -> frozenset[str]:
        """Those that match somewhere in the lines."""
        if _re2() is None:
            return self._present_slowly(lines)
        found = set(self._across(b"\n".join(lines)))
        for begin in range(0, len(lines), _GROUP - _OVERLAP):
            group = b"\n".join(lines[begin : begin + _GROUP])
            possible = (self.patterns[number] for number in self._pieces.Match(group, True) or ())
            found.update(one for one in possible if one not in found and compiled(one).search(group))
        return frozenset(found)

    def _across(self, text: bytes) -> Iterator[str]:
        return (one for one in self.patterns if _ACROSS.search(one) and compiled(one).search(text))

    @cached_property
    def _pieces(self) -> Any:
        re2 = _re2()
        pieces = re2.Filter()
        for pattern in self.patterns:
            pieces.Add(spread(pattern))
        pieces.Compile()
        return pieces

    def _present_slowly(self, lines: Sequence[bytes]) -> frozenset[str]:
        text = b"\n".join(line[:_LONGEST] for line in lines)
        deadline = time.monotonic() + _DEADLINE_S
        in_time = (pattern for pattern in self.patterns if time.monotonic() < deadline)
        return frozenset(pattern for pattern in in_time if compiled(pattern).search(text))


def _text(word: bytes | str) -> str:
    return word if isinstance(word, str) else word.decode(errors="replace")


@lru_cache(maxsize=1)
def _re2() -> Any:
    """The module, or None where there is no wheel of it."""
    try:
        import re2
    except ImportError:
        return None
    return re2
