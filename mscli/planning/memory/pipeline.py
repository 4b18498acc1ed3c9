"""Footprints of engines that put whole layers on each GPU: llama.cpp, transformers, mistral.rs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mscli.planning.memory.footprint import Configuration, Footprint, Room
from mscli.planning.memory.kv import bytes_per_layer
from mscli.planning.memory.weights import Layers, layer_split, layers


@dataclass(frozen=True)
class Stage:
    """What every engine of this kind adds on each GPU, in bytes. `projector` and `image`, its buffer, lie on the first.
    `embedding_on_gpu`: whether the token embedding lies on the first GPU or in host memory."""

    kv_type: str
    kv_tokens: int
    compute: int
    projector: int
    image: int
    runtime: int
    embedding_on_gpu: bool


def footprints(
    config: Configuration, rooms: Sequence[Room], stage: Stage, usable: Sequence[int] | None = None
) -> tuple[Footprint, ...]:
    """Layers dealt by usable memory; projector (and embedding) on the first GPU, the output matrix on the last."""
    cut, kv = layers(config.text, config.variant), _kv_bytes(config, stage)
    ends = _ends(stage, cut, len(rooms))
    return tuple(
        Footprint(
            weights_bytes=end.weights_bytes + count * cut.layer,
            projector_bytes=end.projector_bytes,
            kv_bytes=count * kv,
            compute_bytes=end.compute_bytes,
            runtime_bytes=end.runtime_bytes,
        )
        for end, count in zip(ends, _counts(config, rooms, ends, cut.layer + kv, usable), strict=True)
    )


def counts(
    config: Configuration, rooms: Sequence[Room], stage: Stage, usable: Sequence[int] | None = None
) -> tuple[int, ...]:
    """Decoder layers per GPU."""
    cut = layers(config.text, config.variant)
    ends = _ends(stage, cut, len(rooms))
    return _counts(config, rooms, ends, cut.layer + _kv_bytes(config, stage), usable)


def _kv_bytes(config: Configuration, stage: Stage) -> int:
    """KV cache of one layer."""
    return stage.kv_tokens * bytes_per_layer(config.text, stage.kv_type)


def _counts(
    config: Configuration,
    rooms: Sequence[Room],
    ends: Sequence[Footprint],
    layer_bytes: int,
    usable: Sequence[int] | None,
) -> tuple[int, ...]:
    on_gpus = config.text.layers - config.host_layers
    if len(rooms) == 1:
        return (on_gpus,)
    most = [room.free_bytes for room in rooms] if usable is None else usable
    spaces = [
        size - end.needed_bytes - room.correction_bytes for size, end, room in zip(most, ends, rooms, strict=True)
    ]
    return layer_split(on_gpus, layer_bytes, spaces)


def _ends(stage: Stage, cut: Layers, gpus: int) -> list[Footprint]:
    """What each GPU holds beside decoder layers."""
    embedding = cut.embedding if stage.embedding_on_gpu else 0
    first = Footprint(
        weights_bytes=embedding,
        projector_bytes=stage.projector,
        compute_bytes=stage.compute + stage.image,
        runtime_bytes=stage.runtime,
    )
    others = Footprint(compute_bytes=stage.compute, runtime_bytes=stage.runtime)
    ends = [first, *[others] * (gpus - 1)]
    ends[-1] = replace(ends[-1], weights_bytes=ends[-1].weights_bytes + cut.output + cut.rest)
    return ends
