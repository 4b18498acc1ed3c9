"""One profile on this machine: a Plan, or a NoFit that says which number breaks and the nearest that works.

Pure: the same inventory, overrides and claims always give the same plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mscli.catalog.gpus import GpuFacts
from mscli.catalog.model import Model
from mscli.catalog.profile import Profile
from mscli.inventory.inventory import Inventory
from mscli.planning.learned import Observation
from mscli.planning.nearest import nearest
from mscli.planning.plan import Claim, NoFit, Overrides, Plan
from mscli.planning.verdict import Known, plan_once


def make(
    profile: Profile,
    model: Model,
    inventory: Inventory,
    overrides: Overrides | None = None,
    claims: Sequence[Claim] = (),
    facts: Mapping[str, GpuFacts] | None = None,
    versions: Mapping[str, str] | None = None,
    observations: Sequence[Observation] = (),
) -> Plan | NoFit:
    """Plan `profile` on this machine from the memory that is free now.

    `claims`: what our own instances hold or are about to take. `facts`: bandwidths by NVML name, for the speed
    prediction. `versions`: installed engine versions by engine name; without one the newest behaviour is planned.
    `observations`: earlier good starts, which correct the formulas on the same card, engine version and profile.
    """
    known = Known(inventory, claims, facts or {}, versions or {}, observations)
    asked = overrides or Overrides()
    outcome = plan_once(profile, model, asked, known)
    if isinstance(outcome, Plan) or outcome.nearest:
        return outcome
    return replace(outcome, nearest=nearest(profile, model, asked, known))
