"""transformers serve, plain or with bitsandbytes: whole layers spread over GPUs, a KV cache that grows by copying.

Sources: transformers' DynamicCache (concatenation per layer), accelerate's device map, bitsandbytes' nf4 and int8.
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
from mscli.planning.memory.layers import Stage, layers, spread
from mscli.planning.plan import GIB

CUDA_CONTEXT = GIB // 2
PREFILL = 2048


def footprints(
    config: Configuration, rooms: Sequence[Room], usable: Sequence[int] | None = None
) -> tuple[Footprint, ...]:
    """Layers by free memory (device_map="auto"); embedding, vision encoder and projector on the first GPU."""
    return spread(config, rooms, stage(config), usable)


def stage(config: Configuration) -> Stage:
    """What each GPU holds beside layers."""
    return Stage(
        kv_type="f16",
        kv_tokens=config.kv_tokens,
        compute=compute(config),
        projector=config.variant.projector_bytes,
        image=0,
        runtime=CUDA_CONTEXT,
        embedding_on_gpu=True,
    )


def compute(config: Configuration) -> int:
    """Peak beside weights and KV: one layer's KV once more (it grows by concatenation), the widest activations of a
    prompt of up to 2,048 tokens, one dequantised matrix with bitsandbytes, 0.5 GiB for the largest image."""
    text = config.text
    copied = config.kv_tokens * bytes_per_layer(text, "f16")
    activations = min(PREFILL, config.context) * (3 * text.ffn + 4 * text.hidden) * 2
    matrix = 2 * text.hidden * text.ffn if config.variant.quantisation.startswith("bnb") else 0
    image = GIB // 2 if config.images else 0
    return copied + activations + matrix + image


def host(config: Configuration, rooms: Sequence[Room]) -> Footprint:
    """On the CPU everything; beside GPUs the offloaded layers with their KV, and Python itself."""
    cut = layers(config.text, config.variant)
    if rooms:
        kv = config.host_layers * config.kv_tokens * bytes_per_layer(config.text, "f16")
        return Footprint(weights_bytes=config.host_layers * cut.layer, kv_bytes=kv, runtime_bytes=GIB)
    kv = config.kv_tokens * bytes_per_token(config.text, "f16")
    return Footprint(config.variant.weights_bytes, config.variant.projector_bytes, kv, compute(config), 0, GIB)


def settings(config: Configuration, _rooms: Sequence[Room], _usable: Sequence[int]) -> dict[str, Setting]:
    """The quantisation to ask for, and how many layers stay in host memory."""
    found: dict[str, Setting] = {}
    if config.variant.quantisation.startswith("bnb"):
        found["quantization"] = config.variant.quantisation
    if config.host_layers:
        found["host_layers"] = config.host_layers
    return found


MEMORY = EngineMemory("layer", footprints, host, settings)
