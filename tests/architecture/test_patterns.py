"""No text from outside makes a pattern take more than linear time: `up` once read a log for 40 seconds."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.linear_time import assert_linear

import mscli

# Run as programs, by their path, with what is beside them.
PROGRAMS = ("__main__", "mistralrs_server", "transformers_server", "probe", "inside")
# Matched from the start to the end of what mscli wrote itself.
OWN_TEXT = ("mscli.cli.plan_view._CLAUSES", "mscli.diagnosis.matching._BLANKS")
PUMPS = [
    *"x1A_-.:,=/\\\"'%[]{}()<>#@ \t\n",
    *("x ", "1 ", "x.", "1.", "x-", "x:", "x: ", "x=", "x= ", "x/", "1,", '"x', "://", '\\"', "\x1b[", "[x"),
]  # fmt: skip


def patterns_in(value: object, depth: int = 0) -> Iterator[re.Pattern[str]]:
    if isinstance(value, re.Pattern) and isinstance(value.pattern, str):
        yield value
    elif depth < 3 and isinstance(value, (dict, tuple, list)):
        for each in [*value.values(), *value] if isinstance(value, dict) else value:
            yield from patterns_in(each, depth + 1)


def searched() -> Iterator[object]:
    """The patterns at the top of mscli's modules, without those that are only matched at one place of a text."""
    for found in pkgutil.walk_packages(mscli.__path__, "mscli."):
        if found.name.rpartition(".")[2] in PROGRAMS:
            continue
        module = importlib.import_module(found.name)
        source = ""
        for name, value in sorted(vars(module).items()):
            for place, pattern in enumerate(patterns_in(value)):
                source = source or Path(str(module.__file__)).read_text()
                uses = set(re.findall(rf"\b{name}\.(\w+)\(", source))
                if not (uses and uses <= {"match", "fullmatch"}) and f"{found.name}.{name}" not in OWN_TEXT:
                    yield pytest.param(pattern, id=f"{found.name}.{name}.{place}")


def written_in_place() -> Iterator[object]:
    """The patterns of `re.search` and its like within functions."""
    for path in sorted(Path(mscli.__path__[0]).rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            match call:
                case ast.Call(ast.Attribute(ast.Name("re"), function), [ast.Constant(str(text)), *more], named):
                    if function in {"search", "findall", "finditer", "sub", "split"}:
                        flags = re.MULTILINE if "MULTILINE" in "".join(map(ast.unparse, [*more, *named])) else 0
                        yield pytest.param(re.compile(text, flags), id=f"{path.stem}.{call.lineno}")


@pytest.mark.parametrize("pattern", [*searched(), *written_in_place()])
def test_a_pattern_reads_its_worst_text_in_linear_time(pattern: re.Pattern[str]) -> None:
    for pump in PUMPS:
        assert_linear(pattern, pump, 2_000, noise_s=0.02, least_s=0.0005)
