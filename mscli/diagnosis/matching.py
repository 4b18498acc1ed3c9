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

from mscli.diagnosis.causes import any_pattern
from mscli.frozen import frozen

_BLANKS = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]| ([?*+]?)")
_ACROSS = re.compile(r"\\n|\\z")  # in patterns that may match any number of lines
# Lines that are searched together, and by how many such groups overlap: a message that a terminal wrapped lies in one.
_GROUP, _OVERLAP = 10, 2
_LONGEST = 400  # bytes of a line that `re` looks at
_DEADLINE_S = 20.0

Lines = tuple[int, int]
"""The first of some lines, and the one after the last."""


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


@lru_cache(maxsize=4096)
def compiled(pattern: str) -> Any:
    """The pattern, to be searched for in bytes. Raises re2.error or re.error for one that is not well formed."""
    wide, re2 = spread(pattern), _re2()
    if re2 is None:
        return re.compile(wide.replace(r"\z", r"\Z").encode())
    return re2.compile(wide.encode(), options=_of_bytes())


def fitting(pattern: str, lines: Sequence[str]) -> list[int]:
    """The numbers of the lines in which a pattern matches, each line by itself; searched in all of them at once."""
    found: list[int] = []
    regex, text = compiled(pattern), "\n".join(lines).encode(errors="replace")
    place = number = 0  # the beginning of a line
    while match := regex.search(text, place):
        begin, end = match.span()
        first = number + text.count(b"\n", place, begin)
        last = first + text.count(b"\n", begin, end)
        alone = first == last
        found += [one for one in range(first, last + 1) if alone or regex.search(lines[one].encode(errors="replace"))]
        place, number = text.find(b"\n", end) + 1, last + 1
        if not place:
            break
    return found


class Patterns:
    """Patterns in RE2's syntax of which those are wanted that match somewhere. Compiled at the first search."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._numbers = {pattern: number for number, pattern in enumerate(patterns)}

    def present(self, lines: Sequence[bytes]) -> Mapping[str, Sequence[Lines]]:
        """Those that match somewhere in the lines, each with the lines that hold its matches, in their order."""
        if _re2() is None:
            return self._present_slowly(lines)
        found: dict[int, list[Lines]] = {}
        for begin in range(0, len(lines), _GROUP - _OVERLAP):
            for number in self._pieces.Match(b"\n".join(lines[begin : begin + _GROUP])) or ():
                _add(found.setdefault(number, []), begin, min(begin + _GROUP, len(lines)))
        patterns = tuple(self._numbers)
        whole = {one: [(0, len(lines))] for one in self._across(b"\n".join(lines))}
        return {patterns[number]: groups for number, groups in found.items()} | whole

    def matches(self, pattern: str, text: bytes, said: bytes, begin: int, end: int) -> Iterator[Match]:
        """The matches of one of them between two places of a text; `said`: as long, and where their words are read."""
        regex = self._pieces.re(self._numbers[pattern]) if _re2() else compiled(pattern)
        groups = regex.groupindex
        for found in regex.finditer(text, begin, end):
            places = {name: found.span(number) for name, number in groups.items()}
            words = {_text(name): _text(said[max(first, 0) : max(past, 0)]) for name, (first, past) in places.items()}
            yield Match(found.start(), found.end(), words)

    def _across(self, text: bytes) -> Iterator[str]:
        return (one for one in self._numbers if _ACROSS.search(one) and compiled(one).search(text))

    @cached_property
    def _pieces(self) -> Any:
        re2 = _re2()
        pieces, options = re2.Filter(), _of_bytes()
        for pattern in self._numbers:
            pieces.Add(spread(pattern).encode(), options)
        pieces.Compile()
        return pieces

    def _present_slowly(self, lines: Sequence[bytes]) -> Mapping[str, Sequence[Lines]]:
        text = b"\n".join(line[:_LONGEST] for line in lines)
        deadline = time.monotonic() + _DEADLINE_S
        in_time = (pattern for pattern in self._numbers if time.monotonic() < deadline)
        return {pattern: [(0, len(lines))] for pattern in in_time if compiled(pattern).search(text)}


def _add(groups: list[Lines], begin: int, end: int) -> None:
    """One more group of lines, put together with the one before where they touch."""
    if groups and begin <= groups[-1][1]:
        begin = groups.pop()[0]
    groups.append((begin, end))


def _text(word: bytes | str) -> str:
    return word if isinstance(word, str) else word.decode(errors="replace")


@lru_cache(maxsize=1)
def _of_bytes() -> Any:
    """Patterns of bytes: those of letters of any alphabet take half as long again to compile."""
    options = _re2().Options()
    options.encoding = options.Encoding.LATIN1
    return options


@lru_cache(maxsize=1)
def _re2() -> Any:
    """The module, or None where there is no wheel of it."""
    try:
        import re2
    except ImportError:
        return None
    return re2


def is_fatal(line: str) -> bool:
    """Whether no engine recovers from what the line says."""
    return bool(compiled(any_pattern("fatal")).search(line.encode(errors="replace")))
