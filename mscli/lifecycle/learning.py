"""What a good start took on each GPU, by NVML: the proof that the model sits there, and food for the next plan."""

from __future__ import annotations

from collections.abc import Mapping

from mscli.engines.engine import Observed
from mscli.inventory.detect import detect
from mscli.inventory.inventory import Inventory
from mscli.lifecycle import observations
from mscli.lifecycle.decision import Decision
from mscli.paths import Places, hub_cache
from mscli.planning.learned import observe


def taken_bytes(decision: Decision) -> Mapping[int, int]:
    """GPU index -> how much less is free on it now than when the plan was made; empty without planned GPUs.

    A GPU whose free memory cannot be read, then or now, is left out.
    """
    if not decision.plan.devices:
        return {}
    before, now = _free(decision.snapshot.inventory), _free(detect(hub_cache()))
    index = dict(zip(decision.plan.devices, decision.plan.gpus, strict=True))
    return {index[uuid]: before[uuid] - now[uuid] for uuid in decision.plan.devices if uuid in before and uuid in now}


def learn(decision: Decision, taken: Mapping[int, int], observed: Observed, places: Places) -> None:
    """Keep what was taken beside what was planned, GPU by GPU. A GPU that lost nothing teaches nothing.

    The engine's log tells the KV cache of all GPUs together, so it is only used where there is one.
    """
    plan = decision.plan
    version = decision.snapshot.versions.get(plan.engine)
    kv_bytes = observed.kv_bytes if len(plan.memory) == 1 else None
    fresh = [
        observe(plan, memory, version, taken[memory.gpu], kv_bytes)
        for memory in plan.memory
        if taken.get(memory.gpu, 0) > 0
    ]
    observations.store(places, fresh)


def _free(inventory: Inventory) -> dict[str, int]:
    return {device.uuid: device.free_bytes for device in inventory.devices if device.free_bytes is not None}
