"""vLLM's command line for a shipped profile, from a plan made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from mscli.catalog.load import load_one
from mscli.engines.engine import Command, Installation, Serving
from mscli.engines.vllm.engine import Vllm
from mscli.paths import shipped_profiles
from mscli.planning.plan import Plan
from mscli.weights.progress import WeightFiles

GPUS = ("GPU-aaaa", "GPU-bbbb")
PLAN = Plan(
    profile="small-bf16", engine="vllm", model="mistral-small-3.1", variant="bf16", verdict="safe", reasons=(),
    context=65536, kv_type="f16", tensor_parallel=2, images=10, users=1, gpus=(0, 1), devices=GPUS, memory=(),
    layers_on_gpu=41, host_bytes=0,
    settings={"gpu_memory_utilization": 0.912, "max_num_batched_tokens": 2048, "max_num_seqs": 256},
)  # fmt: skip


def vllm(version: str | None = "0.32.0", **beside: str) -> Installation:
    """A vLLM of that version."""
    return Installation("vllm", ("/opt/v/bin/vllm", "serve"), version, "named", Path("/opt/v/bin/vllm"), beside)


def command(profile: str = "small-bf16", found: Installation | None = None, **more: Any) -> Command:
    """The command line; `more`: changes of the plan, and `options` in place of the profile's."""
    known, model = load_one(profile, shipped_profiles(), None)
    run_dir = Path("/run/x")
    serving = Serving("x", "127.0.0.1", 8000, model.name, run_dir, run_dir / "log", more.pop("key", None))
    options = more.pop("options", known.options)
    plan = replace(PLAN, profile=profile, model=model.name, variant=known.variant, **more)
    weights = WeightFiles("/weights/it", None, 0)
    return Vllm().command(plan, replace(known, options=options), model, weights, serving, found or vllm())
