"""Looks at described machines: the real pynvml in a child process, as LD_LIBRARY_PATH is read when a process starts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.machines.nvml_machines import child

LOOK = """
import json, pathlib, sys
from mscli.cli.screen import plain
from mscli.inventory.detect import detect
json.dump(detect(pathlib.Path("/"), root=pathlib.Path(sys.argv[1])), sys.stdout, default=plain)
"""

LOOK_AT_MANY = """
import json, os, pathlib, sys
from mscli.cli.screen import plain
from mscli.inventory.detect import detect
target = pathlib.Path(os.environ["MSCLI_TEST_MACHINE"])
seen = {}
for name, description in json.load(sys.stdin).items():
    fresh = target.with_suffix(".new")
    fresh.write_text(json.dumps(description))
    fresh.replace(target)
    seen[name] = detect(pathlib.Path("/"))
json.dump(seen, sys.stdout, default=plain)
"""


@pytest.fixture
def look(machine: Callable[..., dict[str, str]]) -> Callable[..., dict[str, Any]]:
    """A function: the JSON data of `mscli gpus` on a described machine."""

    def at(name: str, edit: Any = None, env: dict[str, str] | None = None, root: Path = Path("/")) -> dict[str, Any]:
        seen: dict[str, Any] = json.loads(child(LOOK, {**machine(name, edit), **(env or {})}, str(root)))
        return seen

    return at


@pytest.fixture(scope="session")
def look_at_many(nvml_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """A function: name -> description in, name -> JSON data out, all from one child process (a start costs 0.1 s)."""

    def at(descriptions: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
        target = tmp_path_factory.mktemp("machines") / "machine.json"
        env = {"LD_LIBRARY_PATH": str(nvml_library), "MSCLI_TEST_MACHINE": str(target)}
        seen: dict[str, Any] = json.loads(child(LOOK_AT_MANY, env, stdin=json.dumps(descriptions)))
        return seen

    return at
