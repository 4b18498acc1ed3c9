"""Whole layers on each GPU: how a variant's weights are cut, and the footprints of the engines that spread layers over
GPUs (llama.cpp, Ollama, transformers, mistral.rs)."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heapreplace

from mscli.catalog.model import Text, Variant
from mscli.frozen import frozen, replace
from mscli.planning.devices import Room
from mscli.planning.memory import Configuration, Footprint, bytes_per_layer

# Bytes per 256 elements in GGML's formats (ggml-common.h: block_q4_K 144, q5_K 176, q6_K 210; 8 x block_q8_0 of 34).
GGML_BYTES = {"f32": 1024, "f16": 512, "bf16": 512, "q8_0": 272, "q6_k": 210, "q5_k": 176, "q4_k": 144}


@frozen
class Layers:
    """A variant's weights cut at its layers, in bytes. The three parts and `rest` make up the whole; `rest` is what an
    even division of the layers loses."""

    embedding: int
    layer: int
    output: int
    rest: int


def layers(text: Text, variant: Variant) -> Layers:
    """Cut the weights: the token embedding, the output matrix with its norm, the rest evenly over the layers."""
    embedding, output = embedding_bytes(text, variant), _output_bytes(text, variant)
    layer, rest = divmod(variant.weights_bytes - embedding - output, text.layers)
    return Layers(embedding, layer, output, rest)


def embedding_bytes(text: Text, variant: Variant) -> int:
    """Bytes of the token embedding: stated as the host part by the llama.cpp family's variants, else 16 bit."""
    return variant.host_bytes or text.vocabulary * text.hidden * 2


def _output_bytes(text: Text, variant: Variant) -> int:
    """The output matrix and norm. K-quant mixtures keep it in Q6_K; safetensors formats never quantise it."""
    kind = "q6_k" if variant.quantisation.startswith(("q4_k", "q5_k", "q6_k")) else variant.quantisation
    return text.vocabulary * text.hidden * GGML_BYTES.get(kind, GGML_BYTES["bf16"]) // 256 + 4 * text.hidden


def layer_split(layer_count: int, layer_bytes: int, spaces: Sequence[int]) -> tuple[int, ...]:
    """How many decoder layers each GPU gets so that the fullest one keeps as much free as can be.

    `layer_bytes`: weights and KV cache of one layer. `spaces`: bytes per GPU before any layer, in order; layers are
    dealt one by one to the GPU with the most left, which is optimal for equal layers.
    """
    counts = [0] * len(spaces)
    left = [(-space, index) for index, space in enumerate(spaces)]
    heapify(left)
    for _ in range(layer_count):
        taken, index = left[0]
        counts[index] += 1
        heapreplace(left, (taken + layer_bytes, index))
    return tuple(counts)


@frozen
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


def spread(
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


def layer_counts(
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
