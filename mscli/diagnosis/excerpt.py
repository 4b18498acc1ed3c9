"""The lines of a log in which a cause can show, taken from it in pieces: a log of any length in the same memory."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

from mscli.diagnosis.causes import any_pattern, read_data
from mscli.diagnosis.log_formats import SECTION, Unwrap, encoding_of, plain, unwrapping
from mscli.diagnosis.matching import compiled
from mscli.frozen import frozen

_BLOCK_BYTES = 2**18
_REPEATS = 3
_ENDING = 60
_LONGEST = 4000
_TOGETHER = 50
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
        self._recent: deque[tuple[str, bool]] = deque()  # the last lines, and whether each is kept beyond the end
        self._together: list[str] = []
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
        for line, _ in self._recent:
            self._keep(line)
        self._flush()
        return Excerpt(tuple(_sections(self._kept.all())), self._beginning, self._kept.cut)

    def _take(self, text: str) -> None:
        lines = plain(text).splitlines()
        if self._unwrap is None and any(line.strip() for line in lines):
            self._unwrap = unwrapping(lines)
        for whole in self._unwrap(lines) if self._unwrap else ():
            line = whole if whole == SECTION else _line(whole)
            if line:
                self._recent.append((line, self._is_new(line)))
            while len(self._recent) > _ENDING:
                old, kept = self._recent.popleft()
                if kept:
                    self._keep(old)

    def _is_new(self, line: str) -> bool:
        shape = hash(line.encode(errors="replace").translate(None, _CHANGING))
        if len(self._seen) > _SHAPES:
            self._seen.clear()
        times = self._seen.get(shape, 0) + 1
        self._seen[shape] = times
        return times <= _REPEATS or line == SECTION

    def _keep(self, line: str) -> None:
        self._together.append(line)
        if len(self._together) >= _TOGETHER:
            self._flush()

    def _flush(self) -> None:
        for line in _without_noise(self._together):
            self._kept.add(line)
        self._together = []


def _line(whole: str) -> str:
    said = plain(whole) if "\x1b" in whole else whole  # of a record: what was escaped there
    return said.replace('\\"', '"').rstrip()[:_LONGEST]


class _Ends:
    """The first and the last of many lines, and of those between them the first that tell of an error."""

    def __init__(self) -> None:
        self._head: list[str] = []
        self._errors: list[str] = []
        self._tail: deque[str] = deque()
        self._sizes = [0, 0, 0]
        self.cut = False

    def add(self, line: str) -> None:
        if len(self._head) < _HEAD_LINES and self._sizes[0] < _HEAD_CHARACTERS and not self._tail:
            self._head.append(line)
            self._sizes[0] += len(line)
            return
        self._tail.append(line)
        self._sizes[2] += len(line)
        while len(self._tail) > _TAIL_LINES or self._sizes[2] > _TAIL_CHARACTERS:
            self._between(self._tail.popleft())

    def _between(self, line: str) -> None:
        self._sizes[2] -= len(line)
        if len(self._errors) < _ERRORS and self._sizes[1] < _ERROR_CHARACTERS and (line == SECTION or is_error(line)):
            self._errors.append(line)
            self._sizes[1] += len(line)
        else:
            self.cut = True

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


def error_lines(lines: Iterable[str]) -> list[str]:
    """Those lines that tell of an error and say more than that there was one."""
    return [line for line in lines if is_error(line)]


def is_error(line: str) -> bool:
    """Whether a line tells of an error and says more than that there was one."""
    data = line.encode(errors="replace")
    return bool(compiled(_ERROR).search(data)) and not compiled(_NO_ERROR).search(data)


def _without_noise(lines: Sequence[str]) -> list[str]:
    """The lines that are not noise, looked at together where none of many is."""
    if not compiled(any_pattern("noise")).search("\n".join(lines).encode(errors="replace")):
        return list(lines)
    return [line for line in lines if not _is_noise(line.encode(errors="replace"))]


def _is_noise(line: bytes) -> bool:
    if not compiled(any_pattern("noise")).search(line):
        return False
    return any(
        compiled("|".join(row["patterns"])).search(line)
        and not any(compiled(other).search(line) for other in row.get("unless_here", ()))
        for row in read_data("noise")
    )
