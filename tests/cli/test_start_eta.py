"""How long a start will take is told from the second one on."""

from __future__ import annotations

import json
from pathlib import Path

from support.run_mscli import Mscli


def stages(mscli: Mscli) -> dict[str, dict[str, object]]:
    lines = [json.loads(line) for line in mscli("up", "rehearsal", "--json=stream").out.splitlines()]
    mscli("down")
    return {line["stage"]: line for line in lines if line.get("event") == "stage"}


def test_the_second_start_tells_scripts_and_people_how_long_the_first_one_took(mscli: Mscli, home: Path) -> None:
    assert not [stage for stage in stages(mscli).values() if "eta_s" in stage]
    second = stages(mscli)
    assert {name for name, stage in second.items() if "eta_s" in stage} >= {"starting"}
    assert not {"plan", "weights", "ready"} & {name for name, stage in second.items() if "eta_s" in stage}

    starts = home / "state" / "starts.jsonl"
    assert starts.read_text().count("\n") == 2
    slow = {**json.loads(starts.read_text().splitlines()[-1]), "seconds": 63.9}
    starts.write_text(json.dumps(slow) + "\n")
    shown = next(line for line in mscli("up", "rehearsal").err.splitlines() if line.startswith("starting"))
    assert shown.endswith("about 1 min 3 s left (last start took 1 min 3 s)")
