"""The tables of docs/reference/agent-requests.md: shapes that agents send, and whole first requests of theirs."""

from __future__ import annotations

from pathlib import Path

_PAGE = Path(__file__).parents[3] / "docs" / "reference" / "agent-requests.md"


def shapes(title: str) -> dict[str, str]:
    """What the page says of an engine, by the name of the shape. `title`: the column's, in any case."""
    return _column("shape", title)


def requests(title: str) -> dict[str, str]:
    """What the page says that an engine makes of agents' requests: call, answer or refused, by the agent's name."""
    return _column("request", title)


def _column(first: str, title: str) -> dict[str, str]:
    tables = (table.splitlines() for table in _PAGE.read_text().split("\n\n") if table.startswith(f"| {first} |"))
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in next(tables)]
    place = [name.lower() for name in head].index(title.lower())
    return {row[0].strip("`"): row[place] for row in rows}
