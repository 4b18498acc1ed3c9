"""The pages of the documentation, and what their code names: commands, paths, modules, links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = tuple(sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")]))
_FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_RECORDED = re.compile(r"<!-- recorded:.*?<!-- /recorded -->", re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
# Where another command may begin in a line of shell.
_SEGMENT = re.compile(r"&&|\|\||\$\(|[|;()]")


def name(page: Path) -> str:
    """The page's path in the repository, for a test's name."""
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """The page's text without fenced code, whose lines are kept as empty ones."""
    return _FENCED.sub(lambda found: "\n" * found[0].count("\n"), page.read_text())


def written(page: Path) -> str:
    """The page's text without what was recorded of a run, whose lines are kept as empty ones."""
    return _RECORDED.sub(lambda found: "\n" * found[0].count("\n"), page.read_text())


def code(page: Path) -> Iterator[str]:
    """Everything that stands as code: inline spans, and fenced or indented lines."""
    text = page.read_text()
    for found in _FENCED.finditer(text):
        yield from found[3].replace("\\\n", " ").splitlines()
    rest = prose(page)
    yield from (line.strip() for line in rest.splitlines() if line.startswith("    "))
    yield from (found[1] for found in _SPAN.finditer(rest))


def commands(page: Path) -> Iterator[str]:
    """The arguments of every `mscli ...` that the page shows."""
    for text in code(page):
        for part in _SEGMENT.split(re.split(r"(?:^|\s)#\s", text)[0]):
            if found := re.match(r"\s*(?:\$ )?(?:ssh \S+ )?mscli\s+([^\n>]+)", part):
                yield found[1].strip().rstrip(".,:")


def links(page: Path) -> Iterator[str]:
    """Where the page's links lead, as they are written."""
    yield from (found[1] for found in _LINK.finditer(_SPAN.sub("", prose(page))))


def anchors(page: Path) -> set[str]:
    """The anchors of the page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
