"""Plans for Ollama, as the planner makes them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mscli.catalog.profile import Profile
from mscli.planning.plan import Plan


def plan(profile: Profile, **changes: Any) -> Plan:
    """A plan as the planner makes it for a machine without GPUs; such a plan looks for no GPU memory."""
    made = Plan(
        profile=profile.name, engine="ollama", model=profile.model, variant=profile.variant, verdict="safe",
        reasons=(), context=16384, kv_type="f16", tensor_parallel=1, images=0, users=1, gpus=(), devices=(),
        memory=(), layers_on_gpu=0, host_bytes=0, settings={"num_batch": 512, "num_gpu": 0},
    )  # fmt: skip
    return replace(made, **changes)
