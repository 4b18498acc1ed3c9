"""What `mscli up` takes on machines without an engine changes only knowingly, and none is left without a way on."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fresh_machines.py"


@pytest.fixture(scope="module")
def fresh() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fresh_machines", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fresh_machines"] = module
    spec.loader.exec_module(module)
    return module


def test_no_choice_changes_unnoticed(fresh: ModuleType) -> None:
    assert fresh.page() == fresh.PAGE.read_text(), (
        "mscli now chooses otherwise on a fresh machine. Review it, then: python benchmarks/fresh_machines.py --write"
    )


def test_every_machine_has_an_engine_and_weights_or_is_told_what_to_do(fresh: ModuleType) -> None:
    for machine in fresh.MACHINES:
        name, _, chosen, context, installs, fetches, why = fresh.row(machine)
        if chosen == "nothing":
            assert "apt install" in why or "mscli up" in why, name
        else:
            assert context, name
            assert installs, name
            assert fetches, name
