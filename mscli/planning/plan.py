"""A plan: exactly what would run on this machine, with the bytes on each GPU; or why it does not fit; and both as JSON.

All sizes are int bytes (GiB = 2**30 only appears in text made for people, by `gib`). The field names of `--json` do not
change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mscli.frozen import asdict, field, frozen

SAFE, TIGHT, NO = "safe", "tight", "no"
# Whether a profile's engine can be had on this machine.
ENGINE_READY, ENGINE_INSTALLABLE, ENGINE_MISSING = "ready", "installable", "missing"


@frozen
class Overrides:
    """What the user asked for beyond the profile. None: the profile or the planner decides.

    `gpus`: indices or UUIDs of the GPUs to use. `prefer`: quality, speed or context. `least_context`: wanted at least,
    in tokens of a real model's tokenizer; where it does not fit, the longest context that does. `context` wins over it.
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
    least_context: int | None = None


@frozen
class Claim:
    """GPU memory that one of our own instances holds or is about to take; `planned_bytes`: what its plan says."""

    instance: str
    gpu_uuid: str
    planned_bytes: int
    pids: tuple[int, ...]
    replaced: bool = False


@frozen
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


@frozen
class Speed:
    """Predicted for one stream: decode tokens per second (low, expected, high) and time to first token for a
    1,000-token prompt, in seconds, None where the card's tensor throughput is unknown. `total_tok_s`: expected of all
    the plan's users together, decoding at once."""

    decode_tok_s: tuple[float, float, float]
    ttft_s: float | None
    total_tok_s: float


@frozen
class Cost:
    """US dollars per million output tokens with all users decoding at once and without a pause, beside an API's price.

    `api`, `api_date`: the cheapest seller of the model, or of its successor, and when its price was read; None, as
    `api_usd_per_mtok`, where nobody is known to sell it. `break_even_tokens`: output tokens a day from which this
    machine is the cheaper one; `most_tokens`: what it can make in a day.
    """

    local_usd_per_mtok: float
    api_usd_per_mtok: float | None
    api: str | None
    api_date: str | None
    break_even_tokens: int | None
    most_tokens: int


@frozen
class Plan:
    """What will run. `verdict`: safe or tight. `devices`: UUIDs of the GPUs (or MIG instances); `gpus`: their indices.

    `layers_on_gpu`: layers placed on GPUs (equals the model's layers + 1 unless offloaded; 0 on the CPU).
    `host_bytes`: host memory the weights and KV need. `settings`: engine settings that the planner derived
    (gpu_memory_utilization, max_num_seqs, offload_gib ...), for the engine's command line.
    `steps`: the compromises made on the way (f16 KV -> q8_0 KV ...), in order. `engine_state`: ready, installable (by
    mscli, here) or missing; None where that is not known, as for another machine. `images_dropped`: the profile takes
    images, and there was no memory for them.
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
    engine_state: str | None = None
    images_dropped: bool = False


@frozen
class Refusal:
    """Why no plan can be made at all, whatever the memory. `nearest`: a flag to type instead. `cause`: as of NoFit."""

    reasons: tuple[str, ...]
    nearest: str | None = None
    cause: str | None = None


@frozen
class NoFit:
    """Why a profile does not fit. `missing_bytes`: how much more free memory (on the worst GPU) it would take, 0 when
    memory is not the reason. `nearest`: the nearest options that work ("--ctx 18432"), or None. `cause`: a code
    of the closed list of causes, None where none says it. `engine_state`: as of Plan."""

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
    engine_state: str | None = None


@frozen
class Choice:
    """The profile taken when none was named, why, and all verdicts, best first."""

    chosen: Plan | None
    reason: str
    ranked: tuple[Plan | NoFit, ...]


_HEAD = ("profile", "engine", "model", "variant", "verdict", "reasons", "engine_state")
_UNKNOWN = ("context", "kv_type", "tensor_parallel", "images", "users", "layers_on_gpu", "host_bytes", "speed", "cost")


def to_json(outcome: Plan | NoFit) -> dict[str, Any]:
    """Plain JSON values. A NoFit has the same names as a Plan where it has a value for them, and null elsewhere."""
    values = asdict(outcome)
    head = {name: values.pop(name) for name in _HEAD}
    if isinstance(outcome, Plan):
        del values["images_dropped"]
        return _listed({**head, **values, "missing_bytes": 0, "nearest": None})
    gpus, devices = ([getattr(gpu, name) for gpu in outcome.memory] for name in ("gpu", "uuid"))
    own = {"settings": {}, "steps": [], **{name: values[name] for name in ("missing_bytes", "nearest", "cause")}}
    known = {"gpus": gpus, "devices": devices, "memory": values["memory"]}
    return _listed({**head, **dict.fromkeys(_UNKNOWN), **known, **own})


def _listed(values: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


MIB, GIB = 2**20, 2**30


def gib(size_bytes: int) -> str:
    """ "20.0 GiB"; below a tenth of a GiB in MiB, so that a small shortage never reads 0.0."""
    if abs(size_bytes) < GIB // 10:
        return f"{size_bytes / MIB:.0f} MiB"
    return f"{size_bytes / GIB:.1f} GiB"


def tokens(count: int) -> str:
    """ "131,072 tokens"."""
    return f"{count:,} tokens"


def from_gib(size_gib: float) -> int:
    """Bytes of a size in GiB."""
    return round(size_gib * GIB)
