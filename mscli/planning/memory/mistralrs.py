"""mistral.rs: weights quantized while loading (ISQ), KV cache in paged attention blocks.

Source: mistralrs-core/src/paged_attention/mod.rs (cap = available less max(2 %, 512 MiB), block 32, KV sized by
context) and the automatic device map (layers over GPUs).
"""

from __future__ import annotations

from collections.abc import Sequence

from mscli.planning.devices import Room
from mscli.planning.memory import (
    Configuration,
    EngineMemory,
    Footprint,
    Setting,
)
from mscli.planning.memory.layers import Stage, layer_counts, spread
from mscli.planning.memory.transformers import activations, host_of, stage_of
from mscli.planning.plan import GIB, MIB

BLOCK_TOKENS = 32
PREFILL = 4096


def footprints(
    config: Configuration, rooms: Sequence[Room], usable: Sequence[int] | None = None
) -> tuple[Footprint, ...]:
    """Layers by free memory (the automatic device map); embedding, vision encoder and projector on the first GPU."""
    return spread(config, rooms, stage(config), usable)


def stage(config: Configuration) -> Stage:
    """What each GPU holds beside layers."""
    return stage_of(config, config.kv_type, _tokens(config), compute(config))


def _tokens(config: Configuration) -> int:
    return -(-config.kv_tokens // BLOCK_TOKENS) * BLOCK_TOKENS


def compute(config: Configuration) -> int:
    """Activations that the automatic device map keeps for a prompt of up to 4,096 tokens, and the largest image."""
    return activations(config, PREFILL)


def limits(_config: Configuration, rooms: Sequence[Room]) -> tuple[int, ...]:
    """It never takes the last 2 %, or 512 MiB."""
    return tuple(room.free_bytes - max(room.free_bytes // 50, 512 * MIB) for room in rooms)


def host(config: Configuration, rooms: Sequence[Room]) -> Footprint:
    """On the CPU everything; beside GPUs the layers that stay, with their KV."""
    return host_of(config, rooms, config.kv_type, _tokens(config), compute(config), GIB // 2)


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
