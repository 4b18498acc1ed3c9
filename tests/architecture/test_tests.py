"""The tests' own layout: folders that mirror the package, and one package for what tests share."""

from __future__ import annotations

import ast
import importlib
import re
from collections import Counter
from pathlib import Path

import pytest
from support.imports import imported

TESTS = Path(__file__).parents[1]
PACKAGE = TESTS.parent / "mscli"
# Folders that mirror no part of the package: what holds the house's plan, what goes wrong between processes, what all
# share, what every engine must do.
BESIDE = {"architecture", "docs", "faults", "screens", "support", "engines/contract"}
TEST_MODULES = sorted(path for path in TESTS.rglob("*.py") if TESTS / "support" not in path.parents)


def test_every_folder_of_tests_mirrors_a_part_of_the_package() -> None:
    folders = {path.parent.relative_to(TESTS) for path in TEST_MODULES} - {Path()}
    strays = sorted(str(it) for it in folders if not (PACKAGE / it).is_dir() and str(it) not in BESIDE)
    assert not strays, f"no such part of mscli: {strays}"


def test_what_tests_share_lives_in_support() -> None:
    strays = [it for it in TEST_MODULES if it.name != "conftest.py" and not it.name.startswith("test_")]
    assert not strays, f"move into tests/support: {[str(it.relative_to(TESTS)) for it in strays]}"


def test_no_two_test_files_have_the_same_name() -> None:
    names = Counter(it.name for it in TEST_MODULES if it.name != "conftest.py")
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_no_test_imports_another_test(path: Path) -> None:
    for name in imported(path):
        first, *rest = name.split(".")
        assert first not in {"tests", "conftest"}, f"{path} imports {name}: what tests share lives in tests/support"
        assert not (rest or [first])[-1].startswith("test_"), f"{path} imports the test {name}"


@pytest.mark.parametrize(
    "path",
    sorted([*TESTS.rglob("*.py"), *(TESTS.parent / "benchmarks").glob("*.py")]),
    ids=lambda path: str(path.relative_to(TESTS.parent)),
)
def test_programs_that_stand_in_a_text_import_what_there_is(path: Path) -> None:
    """They run in another process, some of them only beside a real engine: nothing else would miss what has moved."""
    texts = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
    for text in [text for text in texts if isinstance(text, str)]:
        for module, names in re.findall(r"^ *from (mscli[\w.]*) import ([\w, ]+)$", text, re.M):
            found = importlib.import_module(module)
            for name in names.split(", "):
                assert hasattr(found, name) or importlib.util.find_spec(f"{module}.{name}"), f"{module} has no {name}"
