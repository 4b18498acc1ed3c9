"""The reviewed decision table changes only knowingly."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_no_decision_changes_unnoticed() -> None:
    spec = importlib.util.spec_from_file_location("decisions", BENCHMARKS / "decisions.py")
    assert spec is not None
    assert spec.loader is not None
    decisions = importlib.util.module_from_spec(spec)
    sys.modules["decisions"] = decisions
    spec.loader.exec_module(decisions)
    changed = decisions.differences(decisions.table(), (BENCHMARKS / "decisions.csv").read_text())
    assert not changed, (
        "mscli now decides otherwise on some machines. Review each row; where the new one is right, run "
        "`python benchmarks/decisions.py --write` and commit the table:\n" + "\n".join(changed[:40])
    )
