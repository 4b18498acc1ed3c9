"""vLLM (V1 engine): a budget of `gpu_memory_utilization` x CUDA total, filled to the brim with KV cache.

Sources: vllm/v1/worker/gpu_worker.py (requested memory, start-up check, available KV), vllm/engine/arg_utils.py
(default batch sizes), vllm/config/cache.py; published logs for activation, graphs and non-torch memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mscli.catalog.model import Model
from mscli.planning.devices import Room
from mscli.planning.memory import (
    Configuration,
    EngineMemory,
    Footprint,
    Setting,
    bytes_per_token,
    layers,
)
from mscli.planning.plan import GIB, MIB, Plan, from_gib

UTILISATION_CAP = 0.92
CUDA_CONTEXT = from_gib(0.45)
START_CHECK = 150 * MIB
BLOCK_TOKENS = 16


def footprints(
    config: Configuration, rooms: Sequence[Room], _usable: Sequence[int] | None = None
) -> tuple[Footprint, ...]:
    """Every GPU of a tensor-parallel group takes the same."""
    count = len(rooms)
    weights = -(-config.variant.weights_bytes // count)
    offloaded = config.host_layers * layers(config.text, config.variant).layer // count
    batch, sequences = batch_sizes(config, rooms)
    one = Footprint(
        weights_bytes=weights - offloaded,
        projector_bytes=config.variant.projector_bytes,  # assumed whole on each: the worst case
        kv_bytes=_blocks(config.kv_tokens) * BLOCK_TOKENS * bytes_per_token(config.text, config.kv_type, count),
        compute_bytes=activation(config, count, batch, sequences),
        graphs_bytes=graphs(config, sequences),
        runtime_bytes=CUDA_CONTEXT + from_gib(0.3 if count == 1 else 0.5),
    )
    return (one,) * count


def _blocks(token_count: int) -> int:
    return -(-token_count // BLOCK_TOKENS)


def batch_sizes(config: Configuration, rooms: Sequence[Room]) -> tuple[int, int]:
    """(max_num_batched_tokens, max_num_seqs) of the API server: 8192 and 1024 from 70 GiB on, except on an A100, else
    2048 and 256 (arg_utils.get_batch_defaults). The plan passes them on, so that no version's default can differ."""
    big = min(room.cuda_total_bytes for room in rooms) >= 70 * GIB
    big = big and not any("a100" in room.name.lower() or room.unified for room in rooms)
    batch, sequences = (8192, 1024) if big else (2048, 256)
    return (
        int(config.options.get("max-num-batched-tokens", batch)),
        int(config.options.get("max-num-seqs", sequences)),
    )


def activation(config: Configuration, tensor_parallel: int, batch: int, sequences: int) -> int:
    """Peak of the profile run: the widest layer over a full batch or the sampler's rows, whichever is larger.

    Layer: batch x (3 ffn/t + 4 hidden) x 2 bytes. Sampler: sequences x vocabulary x 16 bytes (float32 and bfloat16
    logits, probabilities, sort keys). 0.3 GiB of allocator slack.
    Measured: 1.4 GiB (8B on A100-40), 1.97 (H100), 1.85 to 2.33 (RTX PRO 6000).
    """
    text = config.text
    layer = batch * (3 * text.ffn // tensor_parallel + 4 * text.hidden) * 2
    sampler = sequences * text.vocabulary * 16
    return from_gib(0.3) + max(layer, sampler) + image_peak(config)


def image_peak(config: Configuration) -> int:
    """0.5 GiB for the largest image in the encoder; 0 when images are not allowed (--limit-mm-per-prompt).

    Before 0.9 the encoder materialises its attention scores, heads x patches^2 x 4 bytes: an int4 model ran out of
    memory on 24 GB that way with 0.8.3.
    """
    vision = config.model.architecture.vision
    if not config.images or vision is None:
        return 0
    return from_gib(0.5) + (0 if config.at_least(0, 9) else int(vision.heads * vision.max_patches**2 * 4))


def graphs(config: Configuration, sequences: int) -> int:
    """CUDA graphs, planned at 0.4 GiB for up to 256 sequences and 0.6 above; measured 0.07 to 0.67. 0 when eager."""
    if config.options.get("enforce-eager"):
        return 0
    return from_gib(0.4 if sequences <= 256 else 0.6)


def limits(config: Configuration, rooms: Sequence[Room]) -> tuple[int, ...]:
    """The budget plus what lies outside it: the CUDA context and, before 0.21, the graphs.

    The start-up check wants utilisation x CUDA total to be free after the context is made, on every GPU, with one
    utilisation for all: the smallest ratio counts.
    """
    cap = float(config.options.get("gpu-memory-utilization", UTILISATION_CAP))
    outside = CUDA_CONTEXT + _graphs_outside(config, rooms)
    free = [room.free_bytes - START_CHECK for room in rooms]
    utilisation = min(cap, _utilisation(config, rooms, free))
    return tuple(int(utilisation * room.cuda_total_bytes) + outside for room in rooms)


def _graphs_outside(config: Configuration, rooms: Sequence[Room]) -> int:
    """Before 0.21 CUDA graphs came on top of the budget; since then their estimate is taken out of it."""
    return 0 if config.at_least(0, 21) else graphs(config, batch_sizes(config, rooms)[1])


def _utilisation(config: Configuration, rooms: Sequence[Room], usable: Sequence[int]) -> float:
    """The largest utilisation that takes no more than `usable` on any GPU."""
    outside = CUDA_CONTEXT + _graphs_outside(config, rooms)
    return max(0.0, min((size - outside) / room.cuda_total_bytes for room, size in zip(rooms, usable, strict=True)))


def host(config: Configuration, rooms: Sequence[Room]) -> Footprint:
    """On the CPU everything; beside GPUs the offloaded layers (--cpu-offload-gb)."""
    if rooms:
        return Footprint(weights_bytes=config.host_layers * layers(config.text, config.variant).layer)
    kv = config.kv_tokens * bytes_per_token(config.text, config.kv_type)
    return Footprint(config.variant.weights_bytes, config.variant.projector_bytes, kv, runtime_bytes=5 * GIB // 2)


def settings(config: Configuration, rooms: Sequence[Room], usable: Sequence[int]) -> dict[str, Setting]:
    """gpu_memory_utilization (three digits, rounded down), batch sizes, cpu_offload_gib per GPU."""
    if not rooms:
        return {}
    batch, sequences = batch_sizes(config, rooms)
    utilisation = math.floor(_utilisation(config, rooms, usable) * 1000 + 1e-6) / 1000  # 0.92 stays 0.92
    found: dict[str, Setting] = {
        "gpu_memory_utilization": utilisation,
        "max_num_batched_tokens": batch,
        "max_num_seqs": sequences,
    }
    if config.host_layers:
        found["cpu_offload_gib"] = math.ceil(host(config, rooms).weights_bytes / len(rooms) / GIB * 10) / 10
    return found


def spare(config: Configuration, rooms: Sequence[Room], settings: Mapping[str, Setting]) -> tuple[int, ...]:
    """What the budget holds beyond the plan: vLLM turns it into KV blocks."""
    utilisation = float(settings["gpu_memory_utilization"])
    outside = CUDA_CONTEXT + _graphs_outside(config, rooms)
    return tuple(
        max(0, int(utilisation * room.cuda_total_bytes) + outside - footprint.needed_bytes)
        for room, footprint in zip(rooms, footprints(config, rooms), strict=True)
    )


def cpu_kv_gib(plan: Plan, model: Model) -> int:
    """Whole GiB for the KV cache on the CPU: without it vLLM takes nearly all of the RAM."""
    wanted = plan.context * plan.users * bytes_per_token(model.architecture.text, plan.kv_type)
    return max(1, -(-wanted // GIB))


MEMORY = EngineMemory("tensor", footprints, host, settings, limits, spare)
