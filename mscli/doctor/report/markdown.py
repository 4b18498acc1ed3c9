"""Pieces of Markdown that survive whatever text is put into them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

GIB, MIB = 2**30, 2**20


def fenced(lines: Sequence[str]) -> Iterator[str]:
    """Lines as they are, behind a fence that is longer than any run of backticks in them."""
    longest = max((len(run) for line in lines for run in re.findall(r"`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    yield fence + "text"
    yield from lines
    yield fence


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table; nothing where there are no rows."""
    if not rows:
        return
    yield _row(columns)
    yield _row(["---"] * len(columns))
    yield from (_row(row) for row in rows)


def size(value: int | None) -> str:
    """Bytes for people; "unknown" for None."""
    if value is None:
        return "unknown"
    return f"{value / GIB:.2f} GiB" if abs(value) >= GIB else f"{value / MIB:.0f} MiB"


def _row(cells: Sequence[str]) -> str:
    flat = (" ".join(cell.split()).replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(flat)} |"
