"""mistral.rs: weights quantized while loading (ISQ), KV cache in paged attention blocks.

Source: mistralrs-core/src/paged_attention/mod.rs (cap = available less max(2 %, 512 MiB), block 32, KV sized by
context) and the automatic device map (layers over GPUs).
"""

from __future__ import annotations

from collections.abc import Sequence

from mscli.planning.devices import Room
from mscli.planning.memory.footprint import (
    Configuration,
    EngineMemory,
    Footprint,
    Setting,
    bytes_per_layer,
    bytes_per_token,
)
from mscli.planning.memory.layers import Stage, layer_counts, layers, spread
from mscli.planning.plan import GIB, MIB

CUDA_CONTEXT = GIB // 2
BLOCK_TOKENS = 32
PREFILL = 4096


def footprints(
    config: Configuration, rooms: Sequence[Room], usable: Sequence[int] | None = None
) -> tuple[Footprint, ...]:
    """Layers by free memory (the automatic device map); embedding, vision encoder and projector on the first GPU."""
    return spread(config, rooms, stage(config), usable)


def stage(config: Configuration) -> Stage:
    """What each GPU holds beside layers."""
    return Stage(
        kv_type=config.kv_type,
        kv_tokens=_tokens(config),
        compute=compute(config),
        projector=config.variant.projector_bytes,
        image=0,
        runtime=CUDA_CONTEXT,
        embedding_on_gpu=True,
    )


def _tokens(config: Configuration) -> int:
    return -(-config.kv_tokens // BLOCK_TOKENS) * BLOCK_TOKENS


def compute(config: Configuration) -> int:
    """Activations that the automatic device map keeps for a prompt of up to 4,096 tokens, and the largest image."""
    text = config.text
    activations = min(PREFILL, config.context) * (3 * text.ffn + 4 * text.hidden) * 2
    return activations + (GIB // 2 if config.images else 0)


def limits(_config: Configuration, rooms: Sequence[Room]) -> tuple[int, ...]:
    """It never takes the last 2 %, or 512 MiB."""
    return tuple(room.free_bytes - max(room.free_bytes // 50, 512 * MIB) for room in rooms)


def host(config: Configuration, rooms: Sequence[Room]) -> Footprint:
    """On the CPU everything; beside GPUs the layers that stay, with their KV."""
    cut = layers(config.text, config.variant)
    if rooms:
        kv = config.host_layers * _tokens(config) * bytes_per_layer(config.text, config.kv_type)
        return Footprint(weights_bytes=config.host_layers * cut.layer, kv_bytes=kv, runtime_bytes=GIB // 2)
    kv = _tokens(config) * bytes_per_token(config.text, config.kv_type)
    return Footprint(config.variant.weights_bytes, config.variant.projector_bytes, kv, compute(config), 0, GIB // 2)


def settings(config: Configuration, rooms: Sequence[Room], usable: Sequence[int]) -> dict[str, Setting]:
    """The KV cache is sized by its context (--pa-ctxt-len), never by a share of the card."""
    found: dict[str, Setting] = {"paged_attention_context": _tokens(config)}
    if config.variant.quantisation.startswith("isq-"):
        found["isq"] = config.variant.quantisation.removeprefix("isq-")
    if rooms and config.host_layers:
        counts = layer_counts(config, rooms, stage(config), usable)
        found["device_layers"] = ";".join(f"{index}:{count}" for index, count in enumerate(counts))
    return found


MEMORY = EngineMemory("layer", footprints, host, settings, limits)
