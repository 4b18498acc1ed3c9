"""How long planning takes: every shipped profile on machines with eight GPUs, median of many runs.

python benchmarks/planning_time.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median
from time import perf_counter

from mscli.catalog.gpus import load_gpus
from mscli.catalog.load import load_catalog
from mscli.paths import shipped_profiles
from mscli.planning.described_machine import machine
from mscli.planning.known import Known
from mscli.planning.make import choose

MACHINES = (
    "8x H100", "8x RTX 4090", "8x RTX 5070 Ti", "8x T4", "4x RTX 4090 + 2x RTX 3090 + A6000 + RTX 3060",
)  # fmt: skip
RUNS = 25


def main() -> int:
    """Print one line per machine, in milliseconds."""
    facts = load_gpus(shipped_profiles())
    catalog = load_catalog(shipped_profiles(), Path("/nonexistent"))
    pairs = [(profile, catalog.models[profile.model]) for profile in catalog.profiles.values()]
    print(f"{len(pairs)} profiles")
    for name in MACHINES:
        where = machine(name, facts)
        times = []
        for _ in range(RUNS):
            start = perf_counter()
            choose(pairs, Known(where, (), facts))
            times.append((perf_counter() - start) * 1e3)
        print(f"{name:<50} median {median(times):5.1f} ms, best {min(times):5.1f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
