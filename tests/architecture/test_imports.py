"""The house's plan, held: who may import whom, and where third parties are confined."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "mscli"

# Each part may import itself and what is above it in this table.
ORDER = (
    "errors",
    "frozen",
    "paths",
    "untrusted",
    "http",
    "catalog",
    "inventory",
    "diagnosis",
    "planning",
    "weights",
    "engines",
    "instances",
    "lifecycle",
    "doctor",
    "chat",
    "agents",
    "cli",
)
# The same inside the larger parts. An area of the doctor uses what areas before it looked at, as they are shown.
INSIDE = {
    "doctor": ("checks", "repair", "report"),
    "doctor.checks": (
        *("check", "ollama_server", "loader", "chosen"),
        *("host", "driver", "gpu", "cuda", "containers", "engines", "ollama"),
        *("weights", "network", "ports", "instances", "profile", "run"),
    ),
    "doctor.repair": ("fix", "profiles"),
    "doctor.report": ("redact_prompts", "redact_secrets", "redact"),
    "instances": ("json_values", "process", "log", "container", "store", "fetching", "state", "records", "orphans"),
    "lifecycle": (
        "port",
        "pinned",
        "snapshot",
        "decision",
        "learning",
        "progress",
        "launch",
        "preview",
        "first_install",
        "shutdown",
        "server_weights",
        "restarts",
        "waiting",
        "readiness",
        "preparation",
        "up",
        "healing",
        "companion",
        "service",
    ),
}
PARTS = {f"mscli.{part}" for part in INSIDE}
FREE = {"typing_extensions"}
CONFINED = {
    "typer": {"cli"},
    "rich": {"cli"},
    "markdown_it": {"cli"},
    "prompt_toolkit": {"cli"},
    "yaml": {"catalog", "diagnosis", "agents"},
    "re2": {"diagnosis"},
    "pynvml": {"inventory"},
    "huggingface_hub": {"weights"},
    "ollama": {"engines"},
    "httpx": {"engines"},
    "h11": {"engines"},
    "xllamacpp": {"engines"},
    "starlette": {"engines"},
    "uvicorn": {"engines"},
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module in PARTS:  # `from mscli.lifecycle import port` names the module last
                yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield node.module, node.lineno


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    here = part(path)
    if here not in ORDER:  # __init__, __main__ and package data
        return
    allowed = ORDER[: ORDER.index(here) + 1]
    for name, line in imports(path):
        words = name.split(".")
        if words[0] == "mscli" and len(words) > 1:
            assert words[1] in allowed, f"{path}:{line}: {here} must not import {name}"


def test_no_imports_go_in_a_circle() -> None:
    """Nor do those within functions: of two modules that know each other neither can be read alone."""
    names = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in modules()}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    known = {name: {other for other in imported(path) if other in names} for name, path in names.items()}
    try:
        TopologicalSorter(known).prepare()
    except CycleError as circle:
        pytest.fail(" -> ".join(circle.args[1]))


def imported(path: Path) -> Iterator[str]:
    """All that a module may name by its imports: `from mscli.cli import chat` names mscli.cli and mscli.cli.chat."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            yield node.module


def inner(part: str) -> list[Path]:
    folder = PACKAGE / part.replace(".", "/")
    return [path for path in sorted(folder.rglob("*.py")) if path != folder / "__init__.py"]


@pytest.mark.parametrize(
    ("part", "path"),
    [(part, path) for part in INSIDE for path in inner(part)],
    ids=lambda value: str(value.relative_to(PACKAGE)) if isinstance(value, Path) else value,
)
def test_imports_point_one_way_inside_a_part(part: str, path: Path) -> None:
    folder = PACKAGE / part.replace(".", "/")
    here = path.relative_to(folder).parts[0].removesuffix(".py")
    allowed = INSIDE[part][: INSIDE[part].index(here) + 1]
    for name, line in imports(path):
        if name.startswith(f"mscli.{part}."):
            below = name.removeprefix(f"mscli.{part}.").split(".")[0]
            assert below in allowed, f"{path}:{line}: {here} must not import {name}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_third_parties_are_confined(path: Path) -> None:
    for name, line in imports(path):
        homes = CONFINED.get(name.split(".")[0])
        assert homes is None or part(path) in homes, f"{path}:{line}: {name} belongs to {homes}"
        assert name.split(".")[0] != "click", f"{path}:{line}: newer Typer carries its own Click"


def printing(path: Path) -> Iterator[int]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield node.lineno


def test_only_the_screen_prints() -> None:
    # programs that run as processes of their own speak through their standard output
    own_processes = {"engines/llamacpp/embedded.py"}
    found = [
        f"{path}:{line}"
        for path in modules()
        if str(path.relative_to(PACKAGE)) not in own_processes
        for line in printing(path)
    ]
    assert found == []


def test_no_function_is_longer_than_60_lines() -> None:
    long = [
        f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}"
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and (node.end_lineno or 0) - node.lineno + 1 > 60
    ]
    assert long == []
