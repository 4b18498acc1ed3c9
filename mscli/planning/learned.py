"""Learning from good starts: what a GPU really lost beside the KV cache, against what the formulas said.

Pure: observations are given, file access is the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence

from mscli.frozen import frozen
from mscli.planning.plan import GIB, GpuMemory, Plan, gib

RECENT = 5
# A single odd start (another program came or went meanwhile) must not bend the next plan further than this.
LOWEST, HIGHEST = -GIB // 2, 4 * GIB


@frozen
class Observation:
    """One GPU after one good start. `predicted_bytes` and `observed_bytes`: everything but the KV cache, the
    prediction without what was learned before. `version`: the engine's, None when unknown."""

    gpu: str
    engine: str
    version: str | None
    profile: str
    predicted_bytes: int
    observed_bytes: int


def observe(
    plan: Plan, memory: GpuMemory, version: str | None, taken_bytes: int, kv_bytes: int | None = None
) -> Observation:
    """The observation of one GPU. `taken_bytes`: how much less is free on it (NVML) since before the start;
    `kv_bytes`: KV cache on this GPU by the engine's log, None when the log did not tell (then it is as planned)."""
    planned_kv = memory.kv_bytes + memory.kv_spare_bytes
    predicted = memory.needed_bytes - planned_kv - memory.correction_bytes
    observed = taken_bytes - (planned_kv if kv_bytes is None else kv_bytes)
    return Observation(memory.name, plan.engine, version, plan.profile, predicted, observed)


def relevant(
    observations: Sequence[Observation], gpu: str, engine: str, version: str | None, profile: str
) -> tuple[Observation, ...]:
    """The most recent observations of this very combination; `observations` are in order of time."""
    same = [
        item for item in observations
        if (item.gpu, item.engine, item.version, item.profile) == (gpu, engine, version, profile)
    ]  # fmt: skip
    return tuple(same[-RECENT:])


def correction_bytes(
    observations: Sequence[Observation], gpu: str, engine: str, version: str | None, profile: str
) -> int:
    """Bytes to add to the formulas on this GPU: the median error of the last five starts, limited; 0 without any."""
    errors = [
        item.observed_bytes - item.predicted_bytes for item in relevant(observations, gpu, engine, version, profile)
    ]
    if not errors:
        return 0
    from statistics import median  # brings fractions, decimal and random along: 5 ms that most starts do not need

    return max(LOWEST, min(HIGHEST, int(median(errors))))


def history(observations: Sequence[Observation], plan: Plan, version: str | None) -> tuple[str, ...]:
    """What `--explain` shows: predicted against observed, and what the plan makes of it."""
    lines: list[str] = []
    for memory in plan.memory:
        seen = relevant(observations, memory.name, plan.engine, version, plan.profile)
        if seen:
            lines.append(_line(memory, seen))
    return tuple(lines)


def _line(memory: GpuMemory, seen: Sequence[Observation]) -> str:
    last = seen[-1]
    sign = "+" if memory.correction_bytes >= 0 else "-"
    return (
        f"GPU {memory.gpu} ({memory.name}): without KV cache {gib(last.predicted_bytes)} predicted, "
        f"{gib(last.observed_bytes)} observed in the last of {len(seen)} start{'' if len(seen) == 1 else 's'}; "
        f"this plan adds {sign}{gib(abs(memory.correction_bytes))}"
    )
