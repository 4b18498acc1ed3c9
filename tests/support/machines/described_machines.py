"""The Inventory of a described machine, for checks that are called in the test's own process.

NVML's stand-in has to be found by the loader when a process starts, so a child looks and tells what it has seen.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from mscli.instances.json_values import from_json
from mscli.inventory.inventory import Inventory
from support.machines.nvml_machines import child

_LOOK = """
import json
from collections.abc import Callable
from pathlib import Path
from mscli.inventory.detect import detect
from mscli.instances.json_values import to_json
print(json.dumps(to_json(detect(Path("/")))))
"""


def inventory(env: dict[str, str]) -> Inventory:
    """What mscli sees on the machine that `env` (of the fixture `machine`) puts a process on."""
    return from_json(Inventory, json.loads(child(_LOOK, env)))


_KNOWN: dict[str, Inventory] = {}


def inventory_of(name: str, machine: Callable[..., dict[str, str]]) -> Inventory:
    """The same of a shipped description by its name: looked at once in a test run."""
    if name not in _KNOWN:
        _KNOWN[name] = inventory(machine(name))
    return _KNOWN[name]
