"""The command lines of every shipped vLLM profile, planned on machines that are not here."""

from __future__ import annotations

from pathlib import Path

from mscli.catalog.gpus import load_gpus
from mscli.catalog.load import load_catalog
from mscli.engines.engine import Installation, Serving
from mscli.engines.vllm.engine import Vllm
from mscli.paths import shipped_profiles
from mscli.planning.described_machine import machine
from mscli.planning.known import Known
from mscli.planning.make import make
from mscli.planning.plan import Overrides, Plan
from mscli.weights.progress import WeightFiles

CATALOG = load_catalog(shipped_profiles(), Path("/nonexistent"))
FACTS = load_gpus(shipped_profiles())
PROFILES = sorted(name for name, profile in CATALOG.profiles.items() if profile.engine.startswith("vllm"))
MACHINES = (
    *("RTX 4090", "2x RTX 4090", "4x RTX 4090", "2x RTX 5090", "4x RTX 5090", "2x RTX A6000"),
    *("A100", "H100", "2x H100", "B200"),
)


def command_lines(version: str) -> dict[str, list[str]]:
    """What follows `vllm serve`, by "PROFILE on MACHINE", as it is spelt for this version: all that fit, each once."""
    lines: dict[str, list[str]] = {}
    for name in PROFILES:
        mine: list[list[str]] = []
        for cards in MACHINES:
            for kv in CATALOG.profiles[name].kv_types:
                words = _words(name, cards, Overrides(kv_type=kv), version)
                if words and words not in mine:
                    mine.append(words)
                    lines[f"{name} on {cards}, {kv}"] = words
    return lines


def _words(name: str, cards: str, overrides: Overrides, version: str) -> list[str] | None:
    """The command line of one profile on one machine; None where it does not fit."""
    profile = CATALOG.profiles[name]
    model = CATALOG.models[profile.model]
    plan = make(profile, model, Known(machine(cards, FACTS), (), FACTS, {profile.engine: version}), overrides)
    if not isinstance(plan, Plan):
        return None
    run_dir = Path("/run/x")
    where = Serving(name, "127.0.0.1", 8000, model.name, run_dir, run_dir / "log", None)
    weights = WeightFiles(model.variants[profile.variant].source.repository, None, 0)
    found = Installation("vllm", ("/opt/v/bin/vllm", "serve"), version, "named", Path("/opt/v/bin/vllm"))
    return list(Vllm().command(plan, profile, model, weights, where, found).argv[len(found.argv) :])
