"""What the planner is told beside profile, model and overrides: the machine, what is known of its cards and engines,
and what earlier good starts taught: what a GPU really lost beside the KV cache, against what the formulas said.

Pure: observations are given, file access is the caller's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from mscli.catalog.gpus import GpuFacts, by_clocks, find_gpu
from mscli.frozen import asdict, field, frozen, replace
from mscli.inventory.inventory import Inventory
from mscli.planning.devices import Room
from mscli.planning.devices import rooms as rooms_of
from mscli.planning.plan import GIB, Claim, GpuMemory, NoFit, Plan, gib

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


@frozen
class Availability:
    """Whether an engine can be had here: `state` is ready, installable or missing; `why`: what keeps it away, for one
    that is missing, and `remedy`: what to do."""

    state: str
    why: str = ""
    remedy: str = ""


@frozen
class Known:
    """What the planner is told beside profile, model and overrides.

    `claims`: what our own instances hold or are about to take. `facts`: data sheets by NVML name, for the speed
    prediction. `versions`: installed engine versions by engine name; without one the newest behaviour is planned.
    `observations`: earlier good starts, in order of time, which correct the formulas on the same card, engine version
    and profile. `engines`: whether each (engine, device) can be had here; empty where that is not known.
    """

    inventory: Inventory
    claims: Sequence[Claim] = ()
    facts: Mapping[str, GpuFacts] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    observations: Sequence[Observation] = ()
    engines: Mapping[tuple[str, str], Availability] = field(default_factory=dict)

    def with_engine(self, outcome: Plan | NoFit, device: str) -> Plan | NoFit:
        """The verdict on a profile for `device`, with what is known of its engine; why it is missing comes last."""
        known = self.engines.get((outcome.engine, device))
        if known is None:
            return outcome
        reasons = (*outcome.reasons, known.why) if known.why and isinstance(outcome, Plan) else outcome.reasons
        return replace(outcome, engine_state=known.state, reasons=reasons)

    @cached_property
    def rooms(self) -> tuple[tuple[Room, ...], tuple[str, ...]]:
        """(devices that can be planned on, why others cannot): the same for every profile."""
        return rooms_of(self.inventory, self.claims)

    @cached_property
    def cards(self) -> Mapping[str, GpuFacts | None]:
        """The data sheet's figures of each device, by UUID, or what its clocks say; None where neither is known."""
        found = {(room.name, room.total_bytes, room.unified) for room in self.rooms[0]}
        listed = {key: find_gpu(self.facts, key[0], None if key[2] else key[1]) for key in found}
        return {
            room.uuid: listed[room.name, room.total_bytes, room.unified] or self._by_clocks(room)
            for room in self.rooms[0]
        }

    def _by_clocks(self, room: Room) -> GpuFacts | None:
        clocks = next((gpu.clocks for gpu in self.inventory.gpus if gpu.uuid == room.uuid), None)  # no MIG instance
        if clocks is None or room.compute_capability is None or room.unified:
            return None
        return by_clocks(room.name, room.total_bytes, room.compute_capability, **asdict(clocks))
