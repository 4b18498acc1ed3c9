"""Every text that a user of mscli can see: messages, help, causes and remedies, titles and notes of profiles.

    PYTHONPATH=tests python -m support.screens.strings                 all of them
    PYTHONPATH=tests python -m support.screens.strings --draw 60 SEED  so many of them, drawn by a seed, to be read

A screen shows only what its machine leads to; this finds what stands in the code and in the data. What stands for a
value is shown as {}.
"""

from __future__ import annotations

import ast
import json
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

PACKAGE = Path(__file__).parents[3] / "mscli"
PROFILES = PACKAGE.parent / "profiles"
# Programs of other processes, and text for machines.
NOT_READ = ("rehearsal", "engines/serving", "weights/fetch.py", "lifecycle/companion.py")
KEYS = ("summary", "remedy", "title", "notes")
_SENTENCE = re.compile(r"[a-z]{2,}[,:;]? +[\w(`'\"{<]")  # two words
_CODE = re.compile(
    r"\\[bsdwS.]|\(\?|^[A-Z_]+$|\[\^|\.\*|^<|^/|^--?\w+ ?\{?\}?$|^import |^from |__|=\{\}$|\$\{"
    r"|^bold |^Basic |^Bearer |\w\|\w|^\w+\["
)


def in_code(path: Path) -> Iterator[tuple[int, str]]:
    """The texts of a module: its string literals that are prose, without docstrings."""
    tree = ast.parse(path.read_text())
    skipped = {id(node) for node in _docstrings(tree)} | {id(part) for node in _joined(tree) for part in node.values}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        text = _text(node)
        if text and _SENTENCE.search(text) and not _CODE.search(text):
            yield node.lineno, " ".join(text.split())  # type: ignore[attr-defined]


def in_data() -> Iterator[tuple[str, str]]:
    """The texts of the data: what causes mean and what to do, profiles, help."""
    for path in (*sorted((PACKAGE / "diagnosis" / "signatures").glob("*.yaml")), *sorted(PROFILES.rglob("*.yaml"))):
        for text in _values(yaml.safe_load(path.read_text())):
            yield str(path.relative_to(PACKAGE.parent)), " ".join(text.split())
    listed = json.loads((PACKAGE / "cli" / "commands.json").read_text())["commands"]
    for name, it in listed.items():
        options = [each["help"] for each in (*it["arguments"], *it["options"])]
        for text in (it["summary"], *it["about"], *options):
            yield f"mscli {name} --help", text


def every() -> list[tuple[str, str]]:
    """(where, text) of each text once, in order."""
    found: dict[str, str] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if not str(path.relative_to(PACKAGE)).startswith(NOT_READ):
            for line, text in in_code(path):
                found.setdefault(text, f"{path.relative_to(PACKAGE.parent)}:{line}")
    for where, text in in_data():
        found.setdefault(text, where)
    return sorted((where, text) for text, where in found.items())


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)  # type: ignore[misc]
    return ""


def _joined(tree: ast.AST) -> Iterator[ast.JoinedStr]:
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr))


def _docstrings(tree: ast.AST) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        for statement in getattr(node, "body", ()) if isinstance(getattr(node, "body", None), list) else ():
            if isinstance(statement, ast.Expr):
                yield statement.value


def _values(data: Any) -> Iterator[str]:
    if isinstance(data, dict):
        for key, value in data.items():
            if key in KEYS and isinstance(value, str):
                yield value
            else:
                yield from _values(value)
    elif isinstance(data, list):
        for value in data:
            yield from _values(value)


def main(*words: str) -> None:
    found = every()
    if words[:1] == ("--draw",):
        found = random.Random(words[2]).sample(found, int(words[1]))
    for number, (where, text) in enumerate(found, 1):
        sys.stdout.write(f"{number}. {where}\n   {text}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
