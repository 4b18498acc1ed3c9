"""What of mscli/engines/serving speaks HTTP, and that the rest does not."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from support.imports import imported

SERVING = Path(__file__).parents[2] / "mscli" / "engines" / "serving"
LIBRARIES = {"starlette", "uvicorn", "h11", "httpx", "httpcore", "http", "urllib", "socket", "socketserver", "ssl"}
HTTP = {"gateway.py", "openai_http.py", "backends.py"}
MOST_LINES = 700


def speaks_http(path: Path) -> bool:
    """By a library, or by a module here that does."""
    ours = {f"mscli.engines.serving.{name.removesuffix('.py')}" for name in HTTP}
    return any(name.split(".")[0] in LIBRARIES or name in ours for name in imported(path))


def test_the_code_of_our_own_that_speaks_http_is_small() -> None:
    lines = {name: len((SERVING / name).read_text().splitlines()) for name in sorted(HTTP)}

    assert sum(lines.values()) <= MOST_LINES, lines


@pytest.mark.parametrize("path", sorted(SERVING.rglob("*.py")), ids=lambda path: str(path.relative_to(SERVING)))
def test_only_the_modules_that_are_counted_speak_http(path: Path) -> None:
    assert speaks_http(path) == (str(path.relative_to(SERVING)) in HTTP)


@pytest.mark.parametrize("path", sorted((SERVING / "formats").glob("*.py")), ids=lambda path: path.name)
def test_a_format_waits_for_nothing(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text())))

    assert not any(isinstance(node, (ast.AsyncFunctionDef, ast.Await)) for node in nodes)
    assert not {"asyncio", "anyio", "os", "pathlib", "subprocess", "threading"} & set(imported(path))
