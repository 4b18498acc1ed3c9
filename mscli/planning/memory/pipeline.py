"""Footprints of engines that put whole layers on each GPU: llama.cpp, transformers, mistral.rs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mscli.planning.memory.footprint import Configuration, Footprint, Room
from mscli.planning.memory.kv import bytes_per_layer
from mscli.planning.memory.weights import layer_split, layers


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
    ends = [_ends(config, stage, index, len(rooms)) for index in range(len(rooms))]
    cut, kv = layers(config.text, config.variant), stage.kv_tokens * bytes_per_layer(config.text, stage.kv_type)
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
    ends = [_ends(config, stage, index, len(rooms)) for index in range(len(rooms))]
    kv = stage.kv_tokens * bytes_per_layer(config.text, stage.kv_type)
    return _counts(config, rooms, ends, layers(config.text, config.variant).layer + kv, usable)


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


def _ends(config: Configuration, stage: Stage, index: int, gpus: int) -> Footprint:
    """What a GPU holds beside decoder layers."""
    cut = layers(config.text, config.variant)
    first, last = index == 0, index == gpus - 1
    return Footprint(
        weights_bytes=first * stage.embedding_on_gpu * cut.embedding + last * (cut.output + cut.rest),
        projector_bytes=first * stage.projector,
        compute_bytes=stage.compute + first * stage.image,
        runtime_bytes=stage.runtime,
    )
