"""A verdict as scripts see it: the field names of `--json`, which do not change."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from mscli.planning.plan import Choice, GpuMemory, NoFit, Plan


def to_json(outcome: Plan | NoFit) -> dict[str, Any]:
    """Plain JSON values. A NoFit has the same names as a Plan where it has a value for them, and null elsewhere."""
    return _plan(outcome) if isinstance(outcome, Plan) else _no_fit(outcome)


def choice_json(choice: Choice) -> dict[str, Any]:
    """`chosen` is a profile's name or null; `profiles` holds every verdict, best first."""
    return {
        "chosen": choice.chosen.profile if choice.chosen else None,
        "reason": choice.reason,
        "profiles": [to_json(outcome) for outcome in choice.ranked],
    }


def _plan(plan: Plan) -> dict[str, Any]:
    speed = {"decode_tok_s": list(plan.speed.decode_tok_s), "ttft_s": plan.speed.ttft_s} if plan.speed else None
    return {
        **_head(plan),
        "context": plan.context,
        "kv_type": plan.kv_type,
        "tensor_parallel": plan.tensor_parallel,
        "images": plan.images,
        "users": plan.users,
        "gpus": list(plan.gpus),
        "devices": list(plan.devices),
        "memory": [_memory(gpu) for gpu in plan.memory],
        "layers_on_gpu": plan.layers_on_gpu,
        "host_bytes": plan.host_bytes,
        "settings": dict(plan.settings),
        "steps": list(plan.steps),
        "speed": speed,
        "cost": asdict(plan.cost) if plan.cost else None,
        "missing_bytes": 0,
        "nearest": None,
    }


def _no_fit(refused: NoFit) -> dict[str, Any]:
    unknown = (
        "context",
        "kv_type",
        "tensor_parallel",
        "images",
        "users",
        "layers_on_gpu",
        "host_bytes",
        "speed",
        "cost",
    )
    return {
        **_head(refused),
        **dict.fromkeys(unknown),
        "gpus": [gpu.gpu for gpu in refused.memory],
        "devices": [gpu.uuid for gpu in refused.memory],
        "memory": [_memory(gpu) for gpu in refused.memory],
        "settings": {},
        "steps": [],
        "missing_bytes": refused.missing_bytes,
        "nearest": refused.nearest,
        "cause": refused.cause,
    }


def _head(outcome: Plan | NoFit) -> dict[str, Any]:
    return {
        "profile": outcome.profile,
        "engine": outcome.engine,
        "model": outcome.model,
        "variant": outcome.variant,
        "verdict": outcome.verdict,
        "reasons": list(outcome.reasons),
    }


def _memory(gpu: GpuMemory) -> dict[str, Any]:
    return asdict(gpu)
