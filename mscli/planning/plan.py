"""A plan: exactly what would run on this machine, with the bytes on each GPU; or why it does not fit.

All sizes are int bytes (GiB = 2**30 only appears in text made for people).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SAFE, TIGHT, NO = "safe", "tight", "no"


@dataclass(frozen=True)
class Overrides:
    """What the user asked for beyond the profile. None: the profile or the planner decides.

    `gpus`: indices or UUIDs of the GPUs to use. `prefer`: quality, speed or context.
    """

    context: int | None = None
    users: int | None = None
    images: int | None = None
    kv_type: str | None = None
    gpus: tuple[str, ...] | None = None
    engine: str | None = None
    variant: str | None = None
    prefer: str | None = None
    offload: bool = False


@dataclass(frozen=True)
class Claim:
    """GPU memory that one of our own instances holds or is about to take; `planned_bytes`: what its plan says."""

    instance: str
    gpu_uuid: str
    planned_bytes: int
    pids: tuple[int, ...]
    replaced: bool = False


@dataclass(frozen=True)
class GpuMemory:
    """One GPU's memory, split by what holds it. `free_bytes` is before the start, `held_bytes` others' share,
    `margin_bytes` what the plan leaves over. free = weights + projector + kv + compute + graphs + runtime + margin.
    `kv_spare_bytes` is the part of the margin that vLLM takes all the same, as more KV cache, to fill its budget;
    `correction_bytes` the part of runtime_bytes that earlier starts on this card taught."""

    gpu: int
    uuid: str
    name: str
    total_bytes: int
    free_bytes: int
    held_bytes: int
    weights_bytes: int
    projector_bytes: int
    kv_bytes: int
    compute_bytes: int
    graphs_bytes: int
    runtime_bytes: int
    margin_bytes: int
    kv_spare_bytes: int = 0
    correction_bytes: int = 0

    @property
    def needed_bytes(self) -> int:
        """Everything the engine takes on this GPU, the spare KV cache included."""
        parts = (self.weights_bytes, self.projector_bytes, self.kv_bytes, self.compute_bytes)
        return sum(parts) + self.graphs_bytes + self.runtime_bytes + self.kv_spare_bytes


@dataclass(frozen=True)
class Speed:
    """Predicted for one stream: decode tokens per second (low, expected, high) and time to first token for a
    1,000-token prompt, in seconds; None where the card's bandwidth is unknown."""

    decode_tok_s: tuple[float, float, float]
    ttft_s: float | None


@dataclass(frozen=True)
class Cost:
    """US dollars per million output tokens at the predicted rate, beside the maker's API."""

    local_usd_per_mtok: float
    api_usd_per_mtok: float | None


@dataclass(frozen=True)
class Plan:
    """What will run. `verdict`: safe or tight. `devices`: UUIDs of the GPUs (or MIG instances); `gpus`: their indices.

    `layers_on_gpu`: layers placed on GPUs (equals the model's layers + 1 unless offloaded; 0 on the CPU).
    `host_bytes`: host memory the weights and KV need. `settings`: engine settings that the planner derived
    (gpu_memory_utilization, max_num_seqs, offload_gib ...), for the engine's command line.
    `steps`: the compromises made on the way (f16 KV -> q8_0 KV ...), in order.
    """

    profile: str
    engine: str
    model: str
    variant: str
    verdict: str
    reasons: tuple[str, ...]
    context: int
    kv_type: str
    tensor_parallel: int
    images: int
    users: int
    gpus: tuple[int, ...]
    devices: tuple[str, ...]
    memory: tuple[GpuMemory, ...]
    layers_on_gpu: int
    host_bytes: int
    settings: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    steps: tuple[str, ...] = ()
    speed: Speed | None = None
    cost: Cost | None = None


@dataclass(frozen=True)
class NoFit:
    """Why a profile does not fit. `missing_bytes`: how much more free memory (on the worst GPU) it would take, 0 when
    memory is not the reason. `nearest`: the nearest options that work ("--ctx 18432"), or None. `cause`: a code
    of the closed list of causes, None where none says it."""

    profile: str
    engine: str
    model: str
    variant: str
    reasons: tuple[str, ...]
    missing_bytes: int = 0
    nearest: str | None = None
    memory: tuple[GpuMemory, ...] = ()
    verdict: str = NO
    cause: str | None = None


@dataclass(frozen=True)
class Choice:
    """The profile taken when none was named, why, and all verdicts, best first."""

    chosen: Plan | None
    reason: str
    ranked: tuple[Plan | NoFit, ...]
