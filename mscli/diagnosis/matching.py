"""The lines of a log as one text, and many patterns searched in it, in time that grows with the text's length and with
nothing else.

google-re2 first looks for the fixed pieces of all patterns in one pass and then only for the patterns whose pieces are
there. It has no wheel for musl; there Python's own `re` takes its place, which can need very long for a line made for
it: lines are cut, and patterns that it does not reach in time are left out.

Whose word a line is decides what it can show: a frame of a traceback names functions and files, a command names
options, a client tells of a server that it does not reach, and a server of the runner that it started. And the names of
repositories are made silent: one may be called `mmproj-proxy-oom` and says nothing by that.
"""

from __future__ import annotations

import re
import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any

from mscli.diagnosis.causes import any_pattern, read_data
from mscli.frozen import field, frozen

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


FRAME, INNERMOST, COMMAND, SERVER, OTHER, ANYONE = "frame", "innermost", "command", "server", "other", "anyone"
SILENT = frozenset({FRAME, INNERMOST, COMMAND})
"""They quote: what stands there is no word about what happened, unless a signature asks for it. INNERMOST is the last
frame of a traceback, where the error arose."""

_PYTHON_FRAME = re.compile(r"^(?P<before>.{0,400}?) {0,2}File \"[^\"\n]{1,400}\", line \d+(?:, in [^:\n]{1,200})?$")
_RAISES = re.compile(r"\s+raise \w[\w.]*\(.*[\"']")  # its source holds the message, where the line itself was cut off
_OF_REQUEST = "Exception in ASGI application"  # uvicorn, before the traceback of what ended one request
_RECORD = re.compile(r"(?:INFO|WARNING|ERROR|CRITICAL|DEBUG)\b|\(\w+(?: pid=\d+)?\) ")  # no traceback goes on in it
_TRACEBACK_LINES = 300


@lru_cache(maxsize=1)
def speakers() -> Mapping[str, str]:
    """For each speaker, the first that fits being right, a pattern in RE2's syntax of its lines."""
    return {row["speaker"]: "|".join(row["patterns"]) for row in read_data("speakers")}


def speaker(lines: Sequence[str], number: int) -> str:
    """Who says a line; OTHER where nothing tells."""
    if frame := _PYTHON_FRAME.match(lines[number]):
        return INNERMOST if _is_last(lines, number, frame) else FRAME
    if (before := _of_source(lines, number)) is not None:
        return OTHER if _RAISES.match(lines[number], before) else FRAME
    if of_request(lines, number):
        return SERVER
    line = lines[number][:400].encode(errors="replace")
    return next((name for name, pattern in speakers().items() if compiled(pattern).search(line)), OTHER)


def of_request(lines: Sequence[str], number: int) -> bool:
    """Whether a line belongs to the traceback of what ended one request of a server that goes on."""
    for line in reversed(lines[max(number - _TRACEBACK_LINES, 0) : number + 1]):
        if _OF_REQUEST in line:
            return True
        if _RECORD.match(line):
            return False
    return False


def _of_source(lines: Sequence[str], number: int) -> int | None:
    """Where the source code begins that Python shows below a frame, indented deeper behind the same prefix; None: it is
    no such line."""
    frame = _PYTHON_FRAME.match(lines[number - 1]) if number else None
    if frame is None or not lines[number][frame.end("before") :].startswith("    "):
        return None
    return frame.end("before")


def _is_last(lines: Sequence[str], number: int, frame: re.Match[str]) -> bool:
    """Whether no frame follows in the same traceback."""
    follow = (line for line in lines[number + 1 : number + 4] if not line[frame.end("before") :].startswith("    "))
    return not _PYTHON_FRAME.match(next(follow, ""))


# What hubs and registries put around a name: `huggingface.co/api/models/ORG/NAME`, `hf.co/v2/ORG/NAME/manifests/TAG`.
_IN_URL = re.compile(
    rb"(?:huggingface\.co|hf\.co|hf-mirror\.com|modelscope\.(?:cn|ai)|registry\.ollama\.ai|ollama\.com)"
    rb"/(?:(?:api|v2|models|datasets|library)/)*([\w.-]+)(?:/([\w.-]+))?"
)
_NO_NAME = frozenset(b"api v2 models datasets library resolve raw blob blobs tree manifests revision tags docs".split())
_LETTERS = bytes.maketrans(*(bytes((*range(65, 91), *range(97, 123))), b"X" * 26 + b"x" * 26))
_DISTINCT = 8  # letters of a name that is recognized elsewhere in the log, too


def without_names(text: bytes) -> bytes:
    """The text, each name of a repository that an address in it shows with its letters replaced by `x`: its length and
    its lines stay."""
    if b"/" not in text:
        return text
    spans: set[tuple[int, int]] = set()
    known: set[bytes] = set()
    for found in _IN_URL.finditer(text):
        for begin, end in _parts(found):
            spans.add((begin, end))
            known.add(text[begin:end])
    masked = bytearray(text)
    for begin, end in (*spans, *_elsewhere(text, known)):
        masked[begin:end] = text[begin:end].translate(_LETTERS)
    return bytes(masked)


def _parts(found: re.Match[bytes]) -> Iterator[tuple[int, int]]:
    for group in (1, 2):
        if found[group] is None or found[group] in _NO_NAME:
            return
        yield found.span(group)


def _elsewhere(text: bytes, names: set[bytes]) -> Iterator[tuple[int, int]]:
    """Where the same names stand outside of an address."""
    if wanted := [re.escape(name) for name in names if len(name) >= _DISTINCT and b"-" in name]:
        yield from (found.span() for found in re.finditer(b"|".join(sorted(wanted, reverse=True)), text))


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

    def matches(self, pattern: str, known: Patterns, places: Iterable[Lines]) -> Iterator[Match]:
        """The matches of a pattern in those lines, from the first on."""
        for begin, end in places:
            yield from known.matches(pattern, self.whole, self.said, self.starts[begin], self.starts[end] - 1)

    def span(self, match: Match) -> tuple[int, int]:
        """The first and the last line of a match."""
        return bisect_right(self.starts, match.begin) - 1, bisect_right(
            self.starts, max(match.end - 1, match.begin)
        ) - 1
