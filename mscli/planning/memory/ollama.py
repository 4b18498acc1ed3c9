"""Ollama: since 0.30 llama.cpp's server with a fit target; before that its own engine with a worst-case image graph.

Sources: llm/llama_server.go (fit target, batch size), server/routes.go (context tiers), and for the old engine
llm/memory.go with logs of Mistral Small 3.1 (projector.graph 8.8 GiB, minimum memory 457 MiB).
"""

from __future__ import annotations

from collections.abc import Sequence

from mscli.frozen import replace
from mscli.planning.devices import Room
from mscli.planning.memory import (
    Configuration,
    EngineMemory,
    Footprint,
    Setting,
    bytes_per_token,
    layers,
    llamacpp,
    spread,
)
from mscli.planning.plan import GIB, MIB

# The first version that runs models by llama.cpp's server; the engine before reserves the graph of the largest image
# (8.8 GiB for Pixtral's tower) in GPU memory.
LLAMA_SERVER = (0, 30)
FIT_MARGIN = GIB
MINIMUM = 457 * MIB
OLD_BATCH = 512
# Attention without flash attention, in bytes per token of context: 4.56 float32 copies of heads x batch scores.
SCORE_COPIES = 4.56


def footprints(
    config: Configuration, rooms: Sequence[Room], usable: Sequence[int] | None = None
) -> tuple[Footprint, ...]:
    """llama.cpp's buffers, always with the projector, which is part of the model's one file; before 0.30 the compute
    graph and the projector's graph of the old engine instead."""
    stage = llamacpp.stage(config, len(rooms), config.variant.projector_bytes)
    if not config.at_least(*LLAMA_SERVER):
        stage = replace(stage, compute=old_graph(config), image=projector_graph(config))
    return spread(config, rooms, stage, usable)


def projector_graph(config: Configuration) -> int:
    """What engines before 0.30 reserve for the largest image: float32 attention scores, heads x patches^2 x 4 bytes.

    8.73 GiB for the Pixtral tower (logged as 8.8 GiB), whether or not images are ever sent; 0 without a tower.
    """
    vision = config.model.architecture.vision
    if vision is None or not config.variant.projector_bytes:
        return 0
    return int(vision.heads * vision.max_patches**2 * 4)


def flash_attention(config: Configuration) -> bool:
    """Quantised KV asks for it; mistral3 has it by default from 0.13.2."""
    return config.kv_type != "f16" or config.at_least(0, 13, 2)


def old_graph(config: Configuration) -> int:
    """The compute graph of engines before 0.30 on each GPU.

    With flash attention 4 x batch x (vocabulary + hidden). Without, up to 0.11.4, what the engine reserves: KV bytes x
    heads / KV heads / 6 (its fallback; logged as 426.7 MiB at 4,096 tokens); from 0.11.5, what it takes: 0.285 MiB per
    token beside the above (PR 11090's table: 35.6 GiB at 2,048 tokens, 37.1 at 4,096, 40.1 at 8,192 over two GPUs).
    """
    text = config.text
    logits = 4 * OLD_BATCH * (text.vocabulary + text.hidden)
    if flash_attention(config):
        return logits
    if config.at_least(0, 11, 5):
        return logits + int(SCORE_COPIES * 4 * OLD_BATCH * text.heads * config.kv_tokens)
    reserved = config.kv_tokens * bytes_per_token(text, config.kv_type) * text.heads // text.kv_heads // 6
    return max(logits, reserved)


def limits(config: Configuration, rooms: Sequence[Room]) -> tuple[int, ...]:
    """Since 0.30 layers leave the GPU unless 1 GiB beside the projector stays free (LLAMA_ARG_FIT_TARGET); before,
    unless 457 MiB and two layers do. Either would be a silent spill to the CPU, so the plan stays below.

    The old engine was seen to put the image graph on another GPU than planned (an 8 GB card ran out of memory), and to
    fail at the first request without flash attention: every GPU must have room for the one and twice the other.
    """
    if config.at_least(*LLAMA_SERVER):
        return tuple(room.free_bytes - FIT_MARGIN + llamacpp.image_buffer(config) for room in rooms)
    reserve = MINIMUM + 2 * layers(config.text, config.variant).layer
    if not flash_attention(config):
        reserve += old_graph(config)
    return tuple(
        room.free_bytes - reserve - (projector_graph(config) if index else 0) for index, room in enumerate(rooms)
    )


def settings(config: Configuration, rooms: Sequence[Room], _usable: Sequence[int]) -> dict[str, Setting]:
    """num_batch is fixed at 512: chosen by Ollama itself it grows to 2048 above 32,768 tokens, with four times the
    compute buffer. num_gpu only where layers stay in host memory: given, it switches the fit off."""
    found: dict[str, Setting] = {"num_batch": llamacpp.UBATCH}
    if not rooms:
        found["num_gpu"] = 0
    elif config.host_layers:
        found["num_gpu"] = config.text.layers + 1 - config.host_layers
    return found


MEMORY = EngineMemory("layer", footprints, llamacpp.MEMORY.host, settings, limits)
