"""Ollama: since 0.30 llama.cpp's server with a fit target; before that its own engine with a worst-case image graph.

Sources: llm/llama_server.go (fit target, batch size), server/routes.go (context tiers), and for the old engine
llm/memory.go with logs of Mistral Small 3.1 (projector.graph 8.8 GiB, minimum memory 457 MiB).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mscli.planning.figures import GIB, MIB
from mscli.planning.memory import llamacpp, pipeline
from mscli.planning.memory.footprint import Configuration, EngineMemory, Footprint, Room, Setting
from mscli.planning.memory.weights import layers

FIT_MARGIN = GIB
MINIMUM = 457 * MIB
OLD_BATCH = 512


def footprints(config: Configuration, rooms: Sequence[Room]) -> tuple[Footprint, ...]:
    """llama.cpp's buffers, always with the projector, which is part of the model's one file; before 0.30 the compute
    graph and the projector's graph of the old engine instead."""
    found = pipeline.footprints(config, rooms, llamacpp.stage(config, len(rooms), config.variant.projector_bytes))
    if config.at_least(0, 30):
        return found
    return tuple(
        replace(one, compute_bytes=old_graph(config) + (0 if index else projector_graph(config)))
        for index, one in enumerate(found)
    )


def projector_graph(config: Configuration) -> int:
    """What engines before 0.30 reserve for the largest image: float32 attention scores, heads x patches^2 x 4 bytes.

    8.73 GiB for the Pixtral tower (logged as 8.8 GiB), whether or not images are ever sent; 0 without a tower.
    """
    vision = config.model.architecture.vision
    if vision is None or not config.variant.projector_bytes:
        return 0
    return int(vision.heads * vision.max_patches**2 * 4)


def old_graph(config: Configuration) -> int:
    """The old engine's compute graph: with flash attention (quantised KV) 4 x batch x (vocabulary + hidden), without
    4 x batch x (1 + 4 hidden + tokens x (1 + heads)), tokens up to the batch's own window (llm/memory.go, mistral3)."""
    text = config.text
    flash = 4 * OLD_BATCH * (text.vocabulary + text.hidden)
    if config.kv_type != "f16":
        return flash
    return max(flash, 4 * OLD_BATCH * (1 + 4 * text.hidden + config.context * (1 + text.heads)))


def limits(config: Configuration, rooms: Sequence[Room]) -> tuple[int, ...]:
    """Since 0.30 layers leave the GPU unless 1 GiB beside the projector stays free (LLAMA_ARG_FIT_TARGET); before,
    unless 457 MiB and two layers do. Either would be a silent spill to the CPU, so the plan stays below."""
    if config.at_least(0, 30):
        return tuple(room.free_bytes - FIT_MARGIN + llamacpp.image_buffer(config) for room in rooms)
    two_layers = 2 * layers(config.text, config.variant).layer
    return tuple(room.free_bytes - MINIMUM - two_layers for room in rooms)


def settings(config: Configuration, rooms: Sequence[Room], _margins: Sequence[int]) -> dict[str, Setting]:
    """num_batch is fixed at 512: chosen by Ollama itself it grows to 2048 above 32,768 tokens, with four times the
    compute buffer. num_gpu only where layers stay in host memory: given, it switches the fit off."""
    found: dict[str, Setting] = {"num_batch": llamacpp.UBATCH}
    if not rooms:
        found["num_gpu"] = 0
    elif config.host_layers:
        found["num_gpu"] = config.text.layers + 1 - config.host_layers
    return found


MEMORY = EngineMemory("layer", footprints, llamacpp.MEMORY.host, settings, limits)
