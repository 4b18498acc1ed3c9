"""The lines of a log as one text, in which patterns are searched and the speaker of each line is known."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import field
from functools import cached_property
from itertools import accumulate

from mscli.diagnosis.matching import Lines, Match
from mscli.diagnosis.names import without_names
from mscli.diagnosis.signatures import Table
from mscli.diagnosis.speakers import ANYONE, SILENT, speaker
from mscli.frozen import frozen


@frozen
class Text:
    """The lines as one text in bytes, in which a message that a terminal wrapped is found whole."""

    lines: Sequence[str]
    _speakers: dict[int, str] = field(default_factory=dict, compare=False, repr=False)

    def heard(self, first: int, last: int, wanted: Sequence[str]) -> bool:
        """Whether one of the speakers who count says one of the lines."""
        if ANYONE in wanted:
            return True
        said = {self._speaker(number) for number in range(first, last + 1)}
        return not said.isdisjoint(wanted) if wanted else not said <= SILENT

    def _speaker(self, number: int) -> str:
        return self._speakers.get(number) or self._speakers.setdefault(number, speaker(self.lines, number))

    @cached_property
    def said(self) -> bytes:
        """What was said, with the names of repositories."""
        return b"\n".join(line.encode(errors="replace") for line in self.lines)

    @cached_property
    def whole(self) -> bytes:
        """What is searched: as long as what was said, without the names of repositories."""
        return without_names(self.said)

    @cached_property
    def encoded(self) -> list[bytes]:
        """What is searched, line by line."""
        return self.whole.split(b"\n") if self.lines else []

    @cached_property
    def starts(self) -> list[int]:
        """Where in `whole` each line begins, and where one after the last would."""
        return list(accumulate((len(line) + 1 for line in self.encoded), initial=0))

    def matches(self, pattern: str, known: Table, places: Iterable[Lines]) -> Iterator[Match]:
        """The matches of a pattern in those lines, from the first on."""
        for begin, end in places:
            yield from known.patterns.matches(pattern, self.whole, self.said, self.starts[begin], self.starts[end] - 1)

    def span(self, match: Match) -> tuple[int, int]:
        """The first and the last line of a match."""
        return bisect_right(self.starts, match.begin) - 1, bisect_right(
            self.starts, max(match.end - 1, match.begin)
        ) - 1
