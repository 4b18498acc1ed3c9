"""Text that fits a screen: sizes and times in words, bars, wrapped lines and tables. Nothing here prints.

GiB everywhere, so that GB and GiB cannot be confused. A word is never broken, nor is a column squeezed below its
content: what does not fit is left out by a stated order, or put on a line of its own.
"""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from mscli.frozen import frozen

GIB = 2**30
MIB = 2**20
KIB = 2**10
_GAP = 2  # spaces between columns
_LEAST_CLIPPED = 16  # below so many characters a shortened text says nothing: the column is left out

_BLANKS = re.compile(r"[ \t\n]+")  # str.split would also divide at spaces that keep words together


class Styled(str):
    """Text with a style ("bold red") for terminals that have colours."""

    style = ""


Line = Sequence[str]
"""One line as its parts, some of them Styled."""


def styled(text: str, style: str) -> Styled:
    """The text with a style; an empty one is plain."""
    made = Styled(text)
    made.style = style
    return made


@frozen
class Column:
    """A column of a table. `rank`: 0 is always shown; of the others the highest is left out first on narrow screens.

    `right`: aligned to the right, for numbers. `clip`: a text that may be shortened with an ellipsis.
    """

    head: str
    rank: int = 0
    right: bool = False
    clip: bool = False


def size(value: int | None) -> str:
    """Bytes as GiB, MiB or KiB; "unknown" for None."""
    if value is None:
        return "unknown"
    if abs(value) >= GIB:
        return f"{value / GIB:.1f} GiB"
    return f"{value / MIB:.0f} MiB" if abs(value) >= MIB or not value else f"{value / KIB:.0f} KiB"


def iso(seconds: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def ago(seconds: float) -> str:
    """A duration in its two largest units: `2 h 5 min`, `42 s`."""
    whole = max(0, int(seconds))
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def count(number: int, noun: str, plural: str = "") -> str:
    """A number and its noun in agreement: `1 record`, `2 records`, `3 GPUs`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def bar(share: float, width: int = 20) -> str:
    """A horizontal bar for a share from 0 to 1."""
    filled = round(max(0.0, min(1.0, share)) * width)
    return "█" * filled + "░" * (width - filled)


def cells(text: str) -> int:
    """How many columns of a terminal the text takes: East Asian wide characters take two, combining marks none."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)


def clipped(text: str, width: int) -> str:
    """The text, shortened at a word's end to `width` columns with an ellipsis."""
    if cells(text) <= width:
        return text
    kept = text[: width - 1]
    head = kept.rpartition(" ")[0] if " " in kept and text[width - 1] != " " else kept
    return head.rstrip(" ,;:(") + "…"


def wrapped(text: str, width: int | None, indent: str = "", hanging: str | None = None) -> list[str]:
    """The text in lines of at most `width` columns (None: in one); longer words, URLs and paths stay whole.

    `indent` begins the first line, `hanging` (as `indent` where it is None) those that follow.
    """
    later = indent if hanging is None else hanging
    if width is None or ("\n" not in text and cells(indent) + cells(text) <= width):
        return [indent + text]
    lines, line = [], indent
    empty = True
    for word in _BLANKS.split(text.strip(" \t\n")):
        if not empty and cells(line) + 1 + cells(word) > width:
            lines.append(line)
            line, empty = later, True
        line += word if empty else f" {word}"
        empty = False
    return [*lines, line]


def rows_of(text: str, width: int) -> list[str]:
    """The text in rows of at most `width` columns: lines are broken between words, longer words anywhere."""
    rows: list[str] = []
    for line in text.split("\n"):
        while (fits := _fitting(line, width)) < len(line):
            blank = line.rfind(" ", 1, fits + 1)
            at = blank if line[:blank].strip() and blank > 0 else fits
            rows.append(line[:at])
            line = line[at:].removeprefix(" ")
        rows.append(line)
    return rows


def _fitting(line: str, width: int) -> int:
    """How many characters at the beginning fit; one at least."""
    if line.isascii() or cells(line) <= width:
        return min(len(line), width)
    used = 0
    for place, character in enumerate(line):
        used += cells(character)
        if used > width:
            return max(1, place)
    return len(line)


def command_lines(words: Sequence[str], width: int | None, indent: str = "") -> list[str]:
    """A shell command in lines that end with a backslash, so that it can be copied as it stands; a flag stays with its
    value. `words` are quoted already."""
    if width is None:
        return [indent + " ".join(words)]
    lines, line = [], indent
    for group in _flags_with_values(words):
        if line.strip() and cells(line) + cells(group) + 3 > width:
            lines.append(f"{line} \\")
            line = f"{indent}  "
        line += group if not line.strip() else f" {group}"
    return [*lines, line]


def _flags_with_values(words: Sequence[str]) -> Iterator[str]:
    held = ""
    for word in words:
        if held and not word.startswith("-"):
            yield f"{held} {word}"
            held = ""
            continue
        if held:
            yield held
        held = word if word.startswith("-") and "=" not in word else ""
        if not held:
            yield word
    if held:
        yield held


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> list[Line]:
    """Rows under column heads. Columns in which nothing stands are left out; so are those of the highest rank as long
    as the rest is wider than `width` (None: no limit). Where rank 0 alone is too wide, each row becomes a block."""
    shown = [index for index in range(len(columns)) if any(row[index] for row in rows)]
    while width is not None and _total(columns, rows, shown) > width:
        last = max(shown, key=lambda index: columns[index].rank, default=0)
        if not shown or columns[last].rank == 0:
            return list(_blocks([columns[index] for index in shown], _picked(rows, shown)))
        shown.remove(last)
    heads: list[str] = [styled(columns[index].head, "bold") for index in shown]
    body: list[list[str]] = [heads, *_picked(rows, shown)]
    kinds = [columns[index] for index in shown]
    widths = [max(cells(row[place]) for row in body) for place in range(len(shown))]
    if width is not None:
        _clip(body, kinds, widths, width)
    return [_aligned(row, kinds, widths) for row in body]


def _picked(rows: Iterable[Sequence[str]], shown: Sequence[int]) -> list[list[str]]:
    return [[row[index] for index in shown] for row in rows]


def _total(columns: Sequence[Column], rows: Sequence[Sequence[str]], shown: Sequence[int]) -> int:
    """The least width of these columns, in which a text that may be shortened counts little."""
    total = _GAP * (len(shown) - 1)
    for index in shown:
        widest = max(cells(columns[index].head), *(cells(row[index]) for row in rows))
        total += min(widest, _LEAST_CLIPPED) if columns[index].clip else widest
    return total


def _clip(body: list[list[str]], kinds: Sequence[Column], widths: list[int], width: int) -> None:
    """Shorten, in place, the texts that may be shortened, to the space that the other columns leave."""
    for place, kind in enumerate(kinds):
        if kind.clip:
            room = width - _GAP * (len(kinds) - 1) - sum(widths) + widths[place]
            widths[place] = min(widths[place], max(room, _LEAST_CLIPPED))
            for row in body:
                style = getattr(row[place], "style", "")
                row[place] = styled(clipped(row[place], widths[place]), style)


def _aligned(row: Sequence[str], kinds: Sequence[Column], widths: Sequence[int]) -> Line:
    parts: list[str] = []
    for place, (text, kind, wide) in enumerate(zip(row, kinds, widths, strict=True)):
        space = " " * (wide - cells(text))
        last = place == len(row) - 1
        parts += [space, text] if kind.right else [text, "" if last else space]
        parts.append("" if last else " " * _GAP)
    while parts and not parts[-1].strip():
        parts.pop()
    return parts


def _blocks(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> Iterator[Line]:
    """Each row as a block: its first value, and below it the others, each with its head."""
    head = max((cells(column.head) for column in columns[1:]), default=0)
    for row in rows:
        yield [styled(row[0], "bold")]
        for column, text in zip(columns[1:], row[1:], strict=True):
            if text:
                yield [f"  {column.head.lower():<{head}}  ", text]
