"""The table of docs/reference/agent-requests.md."""

from __future__ import annotations

from pathlib import Path

_PAGE = Path(__file__).parents[3] / "docs" / "reference" / "agent-requests.md"


def column(title: str) -> dict[str, str]:
    """What the page says of an engine, by the name of the shape. `title`: the column's, in any case."""
    head, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in _PAGE.read_text().splitlines() if "|" in line
    ]
    place = [name.lower() for name in head].index(title.lower())
    return {row[0].strip("`"): row[place] for row in rows}
