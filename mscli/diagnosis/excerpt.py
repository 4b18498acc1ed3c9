"""The lines of a log in which a cause can show, taken from it in pieces: a log of any length in the same memory."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import BinaryIO

from mscli.diagnosis.causes import read_data
from mscli.diagnosis.log import SECTION, Unwrap, encoding_of, plain, unwrapping
from mscli.diagnosis.matching import compiled, fitting
from mscli.frozen import frozen

_BLOCK_BYTES = 2**18
_REPEATS = 3
_ENDING = 60
_LONGEST = 4000
_SHAPES = 100_000  # remembered; beyond it they are forgotten, and a repeated line is kept again
_HEAD_LINES, _HEAD_CHARACTERS = 2_000, 175_000
_TAIL_LINES, _TAIL_CHARACTERS = 6_000, 525_000
_ERRORS, _ERROR_CHARACTERS = 1_000, 100_000  # of what lies between
_BEGINNING = 2**16  # characters as they came, by which the engine is known

_CHANGING = "0123456789abcdef█▉▊▋▌▍▎▏#=".encode()  # what differs from one such line to the next

# Lines that tell of an error, and those of them that only say that there was one, or where.
_ERROR = (
    r"^[\d.]+ E |(?:Error|Exception)\b|\bfail(?:ed|ure|s)?\b|\bfatal\b|panicked|\bcannot\b|can't|\bunable\b|\binvalid\b"
    r"|not (?:supported|found|available|installed|allowed|set)|\bmissing\b|unsupported|\bunknown [^)]|incompatible"
)
_NO_ERROR = (
    r"^[\d.]+ [DI] |\b(?:INFO|DEBUG|WARN(?:ING)?)\b|File \"|Engine core initialization failed|WorkerProc"
    r"|EngineCore failed|EngineDeadError|Failed core proc|RecvError|CalledProcessError|exit status"
    r"|See root cause above|Traceback|resource_tracker|exiting due to|please check the input params"
    r"|cleaning up before exit"
)


@frozen
class Excerpt:
    """What is looked at of a log. `sections`: its lines, those of each of several logs in one paste by themselves;
    `beginning`: how it began, as it came; `cut`: lines between its beginning and its end were left out."""

    sections: tuple[tuple[str, ...], ...]
    beginning: str
    cut: bool

    @property
    def empty(self) -> bool:
        """Whether nothing stood in it."""
        return not self.beginning.strip()

    @property
    def lines(self) -> list[str]:
        """The lines of all sections."""
        return [line for section in self.sections for line in section]


def excerpt(log: str) -> Excerpt:
    """The excerpt of a text."""
    taken = _Taken()
    for begin in range(0, len(log), _BLOCK_BYTES):
        taken.feed(log[begin : begin + _BLOCK_BYTES])
    return taken.finished()


def excerpt_of(stream: BinaryIO) -> Excerpt:
    """The excerpt of a file, from where it stands, or of a pipe. Waits for its end. Raises OSError."""
    taken = _Taken()
    block = stream.read(_BLOCK_BYTES)
    decoder = codecs.getincrementaldecoder(encoding_of(block))(errors="replace")
    while block:
        taken.feed(decoder.decode(block))
        block = stream.read(_BLOCK_BYTES)
    taken.feed(decoder.decode(b"", final=True))
    return taken.finished()


def telling(log: str) -> list[str]:
    """The lines in which a cause can show, in their order: each shape of a line at most three times, but the end whole.

    Progress bars that overwrite themselves count as lines. A line is cut at 4000 characters. Of what is longer than
    8,000 lines or 700,000 characters, the first quarter and the last three quarters of that are kept, and of the lines
    between them the first errors.
    """
    return excerpt(log).lines


class _Taken:
    """A log as it is taken in: what repeats itself is dropped at once, and what lies far from both ends later."""

    def __init__(self) -> None:
        self._beginning = ""
        self._rest: list[str] = []  # an unfinished line, in pieces
        self._unwrap: Unwrap | None = None
        self._seen: dict[int, int] = {}
        self._recent: list[tuple[str, bool]] = []  # the last lines, and whether each is kept beyond the end
        self._kept = _Ends()

    def feed(self, text: str) -> None:
        """The next piece."""
        if len(self._beginning) < _BEGINNING:
            self._beginning += text[: _BEGINNING - len(self._beginning)]
        end = text.rfind("\n", 0, max(text.rfind("\n"), 0)) + 1  # two records may hold one line
        if not end and sum(map(len, self._rest)) < _BLOCK_BYTES:
            self._rest.append(text)
            return
        end = end or len(text)
        self._take("".join((*self._rest, text[:end])))
        self._rest = [text[end:]]

    def finished(self) -> Excerpt:
        """What is looked at of all of it."""
        self._take("".join(self._rest))
        self._kept.add(_without_noise([line for line, _ in self._recent]))
        return Excerpt(tuple(_sections(self._kept.all())), self._beginning, self._kept.cut)

    def _take(self, text: str) -> None:
        lines = plain(text).splitlines()
        if self._unwrap is None and any(line.strip() for line in lines):
            self._unwrap = unwrapping(lines)
        said = _cleaned(self._unwrap(lines)) if self._unwrap else []
        self._recent += zip(said, self._are_new(said), strict=True)
        self._kept.add(_without_noise([line for line, new in self._recent[:-_ENDING] if new]))
        self._recent = self._recent[-_ENDING:]

    def _are_new(self, lines: Sequence[str]) -> Iterator[bool]:
        if len(self._seen) > _SHAPES:
            self._seen.clear()
        shapes = "\n".join(lines).encode(errors="replace").translate(None, _CHANGING).split(b"\n")
        for line, shape in zip(lines, map(hash, shapes), strict=False):
            self._seen[shape] = times = self._seen.get(shape, 0) + 1
            yield times <= _REPEATS or line == SECTION


def _cleaned(lines: Sequence[str]) -> list[str]:
    """The lines that say something, without what was escaped in a record, and cut."""
    text = "\n".join(lines)
    said = plain(text) if "\x1b" in text else text
    whole = said.replace('\\"', '"').split("\n")
    return [cut for line in whole if (cut := line if line == SECTION else line.rstrip()[:_LONGEST])]


class _Ends:
    """The first and the last of many lines, and of those between them the first that tell of an error."""

    def __init__(self) -> None:
        self._head: list[str] = []
        self._errors: list[str] = []
        self._tail: deque[str] = deque()
        self._sizes = [0, 0, 0]
        self.cut = False

    def add(self, lines: Sequence[str]) -> None:
        rest = lines[self._begun(lines) :]
        self._tail += rest
        self._sizes[2] += sum(map(len, rest))
        between = []
        while len(self._tail) > _TAIL_LINES or self._sizes[2] > _TAIL_CHARACTERS:
            between.append(self._tail.popleft())
            self._sizes[2] -= len(between[-1])
        self._between(between)

    def _begun(self, lines: Sequence[str]) -> int:
        """Put the first of the lines to the beginning, while there is room; how many they are."""
        for number, line in enumerate(lines):
            if self._tail or len(self._head) >= _HEAD_LINES or self._sizes[0] >= _HEAD_CHARACTERS:
                return number
            self._head.append(line)
            self._sizes[0] += len(line)
        return len(lines)

    def _between(self, lines: Sequence[str]) -> None:
        kept = 0
        for line in () if self._full else _told(lines):
            if not self._full:
                self._errors.append(line)
                self._sizes[1] += len(line)
                kept += 1
        self.cut = self.cut or kept < len(lines)

    @property
    def _full(self) -> bool:
        """Whether no more errors are kept of what lies between the ends."""
        return len(self._errors) >= _ERRORS or self._sizes[1] >= _ERROR_CHARACTERS

    def all(self) -> list[str]:
        return [*self._head, *self._errors, *self._tail]


def _sections(lines: Sequence[str]) -> Iterator[tuple[str, ...]]:
    section: list[str] = []
    for line in (*lines, SECTION):
        if line != SECTION:
            section.append(line)
        elif section:
            yield tuple(section)
            section = []


def error_lines(lines: Sequence[str]) -> list[str]:
    """Those lines that tell of an error and say more than that there was one."""
    return [lines[number] for number in _errors(lines)]


def _errors(lines: Sequence[str]) -> Iterator[int]:
    return (number for number in fitting(_ERROR, lines) if not _matches(_NO_ERROR, lines[number]))


def _told(lines: Sequence[str]) -> Iterator[str]:
    """The lines that tell of an error, and those between two logs."""
    errors = set(_errors(lines))
    return (line for number, line in enumerate(lines) if number in errors or line == SECTION)


def _without_noise(lines: Sequence[str]) -> list[str]:
    noise = {
        number
        for unless, pattern in _noise().items()
        for number in fitting(pattern, lines)
        if not any(_matches(other, lines[number]) for other in unless)
    }
    return [line for number, line in enumerate(lines) if number not in noise]


@lru_cache(maxsize=1)
def _noise() -> Mapping[tuple[str, ...], str]:
    """The pattern of lines that are noise unless one of its key's patterns matches them."""
    patterns: dict[tuple[str, ...], list[str]] = {}
    for row in read_data("noise"):
        patterns.setdefault(tuple(row.get("unless_here", ())), []).extend(row["patterns"])
    return {unless: "|".join(several) for unless, several in patterns.items()}


def _matches(pattern: str, line: str) -> bool:
    return bool(compiled(pattern).search(line.encode(errors="replace")))
