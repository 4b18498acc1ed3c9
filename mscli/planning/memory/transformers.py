"""Engines that load safetensors by an automatic device map: whole layers spread over GPUs by their free memory.

transformers serve, plain or with bitsandbytes: a KV cache that grows by copying. Sources: transformers' DynamicCache
(concatenation per layer), accelerate's device map, bitsandbytes' nf4 and int8.

mistral.rs: weights quantized while loading (ISQ), KV cache in paged attention blocks. Source:
mistralrs-core/src/paged_attention/mod.rs (cap = available less max(2 %, 512 MiB), block 32, KV sized by context).
"""

from __future__ import annotations

from collections.abc import Sequence

from mscli.planning.devices import Room
from mscli.planning.memory import (
    Configuration,
    EngineMemory,
    Footprint,
    Setting,
    Stage,
    bytes_per_layer,
    bytes_per_token,
    layer_counts,
    layers,
    spread,
)
from mscli.planning.plan import GIB, MIB

CUDA_CONTEXT = GIB // 2
PREFILL = 2048
BLOCK_TOKENS = 32
ISQ_PREFILL = 4096


def footprints(
    config: Configuration, rooms: Sequence[Room], usable: Sequence[int] | None = None
) -> tuple[Footprint, ...]:
    """Layers by free memory (device_map="auto"); embedding, vision encoder and projector on the first GPU."""
    return spread(config, rooms, stage(config), usable)


def stage(config: Configuration) -> Stage:
    """What each GPU holds beside layers."""
    return _stage(config, "f16", config.kv_tokens, compute(config))


def _stage(config: Configuration, kv_type: str, kv_tokens: int, compute_bytes: int) -> Stage:
    """What each GPU holds beside layers, of an engine with an automatic device map."""
    return Stage(
        kv_type=kv_type,
        kv_tokens=kv_tokens,
        compute=compute_bytes,
        projector=config.variant.projector_bytes,
        image=0,
        runtime=CUDA_CONTEXT,
        embedding_on_gpu=True,
    )


def compute(config: Configuration) -> int:
    """Peak beside weights and KV: one layer's KV once more (it grows by concatenation), the activations of a prompt of
    up to 2,048 tokens, one dequantised matrix with bitsandbytes."""
    text = config.text
    copied = config.kv_tokens * bytes_per_layer(text, "f16")
    matrix = 2 * text.hidden * text.ffn if config.variant.quantisation.startswith("bnb") else 0
    return copied + matrix + _activations(config, PREFILL)


def _activations(config: Configuration, most_tokens: int) -> int:
    """The widest activations of a prompt of up to `most_tokens`, and 0.5 GiB for the largest image."""
    text = config.text
    widest = min(most_tokens, config.context) * (3 * text.ffn + 4 * text.hidden) * 2
    return widest + (GIB // 2 if config.images else 0)


def host(config: Configuration, rooms: Sequence[Room]) -> Footprint:
    """On the CPU everything; beside GPUs the offloaded layers with their KV, and Python itself."""
    return _host(config, rooms, "f16", config.kv_tokens, compute(config), GIB)


def _host(
    config: Configuration, rooms: Sequence[Room], kv_type: str, kv_tokens: int, compute_bytes: int, runtime_bytes: int
) -> Footprint:
    """Host memory of an engine with an automatic device map."""
    if rooms:
        kv = config.host_layers * kv_tokens * bytes_per_layer(config.text, kv_type)
        weights = config.host_layers * layers(config.text, config.variant).layer
        return Footprint(weights_bytes=weights, kv_bytes=kv, runtime_bytes=runtime_bytes)
    kv, variant = kv_tokens * bytes_per_token(config.text, kv_type), config.variant
    return Footprint(variant.weights_bytes, variant.projector_bytes, kv, compute_bytes, 0, runtime_bytes)


def settings(config: Configuration, _rooms: Sequence[Room], _usable: Sequence[int]) -> dict[str, Setting]:
    """The quantisation to ask for, and how many layers stay in host memory."""
    found: dict[str, Setting] = {}
    if config.variant.quantisation.startswith("bnb"):
        found["quantization"] = config.variant.quantisation
    if config.host_layers:
        found["host_layers"] = config.host_layers
    return found


MEMORY = EngineMemory("layer", footprints, host, settings)


# mistral.rs


def isq_footprints(
    config: Configuration, rooms: Sequence[Room], usable: Sequence[int] | None = None
) -> tuple[Footprint, ...]:
    """Layers by free memory (the automatic device map); embedding, vision encoder and projector on the first GPU."""
    return spread(config, rooms, isq_stage(config), usable)


def isq_stage(config: Configuration) -> Stage:
    """What each GPU holds beside layers."""
    return _stage(config, config.kv_type, _isq_tokens(config), isq_compute(config))


def _isq_tokens(config: Configuration) -> int:
    return -(-config.kv_tokens // BLOCK_TOKENS) * BLOCK_TOKENS


def isq_compute(config: Configuration) -> int:
    """Activations that the automatic device map keeps for a prompt of up to 4,096 tokens, and the largest image."""
    return _activations(config, ISQ_PREFILL)


def isq_limits(_config: Configuration, rooms: Sequence[Room]) -> tuple[int, ...]:
    """It never takes the last 2 %, or 512 MiB."""
    return tuple(room.free_bytes - max(room.free_bytes // 50, 512 * MIB) for room in rooms)


def isq_host(config: Configuration, rooms: Sequence[Room]) -> Footprint:
    """On the CPU everything; beside GPUs the layers that stay, with their KV."""
    return _host(config, rooms, config.kv_type, _isq_tokens(config), isq_compute(config), GIB // 2)


def isq_settings(config: Configuration, rooms: Sequence[Room], usable: Sequence[int]) -> dict[str, Setting]:
    """The KV cache is sized by its context (--pa-ctxt-len), never by a share of the card."""
    found: dict[str, Setting] = {"paged_attention_context": _isq_tokens(config)}
    if config.variant.quantisation.startswith("isq-"):
        found["isq"] = config.variant.quantisation.removeprefix("isq-")
    if rooms and config.host_layers:
        counts = layer_counts(config, rooms, isq_stage(config), usable)
        found["device_layers"] = ";".join(f"{index}:{count}" for index, count in enumerate(counts))
    return found


MISTRALRS = EngineMemory("layer", isq_footprints, isq_host, isq_settings, isq_limits)
