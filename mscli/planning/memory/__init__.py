"""What one engine takes on each GPU: the question (Configuration), the answer (Footprint), and the contract that one
file per engine fulfils. All sizes are int bytes.

And what the engines share: the bytes of a KV cache, how a variant's weights are cut, and the footprints of those that
spread whole layers over GPUs (llama.cpp, Ollama, transformers, mistral.rs).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from heapq import heapify, heapreplace
from typing import Protocol

from mscli.catalog.model import Model, Text, Variant
from mscli.frozen import field, frozen, replace
from mscli.planning.devices import Room

Setting = str | int | float | bool


@frozen
class Configuration:
    """What would run, without the devices.

    `context` is per user, in tokens. `host_layers`: decoder layers whose weights stay in host memory.
    `version`: the engine's, None when unknown (then the newest known behaviour is planned).
    `options`: the profile's engine flags, without their dashes."""

    model: Model
    variant: Variant
    context: int
    kv_type: str
    users: int = 1
    images: int = 0
    host_layers: int = 0
    version: tuple[int, ...] | None = None
    options: Mapping[str, Setting] = field(default_factory=dict)

    @property
    def text(self) -> Text:
        """The decoder's sizes."""
        return self.model.architecture.text

    @property
    def kv_tokens(self) -> int:
        """Tokens the KV cache must hold: every user may fill the whole context."""
        return self.context * self.users

    def at_least(self, *version: int) -> bool:
        """Whether the engine is `version` or newer; an unknown version counts as newest."""
        return self.version is None or self.version >= version


@frozen
class Footprint:
    """Bytes on one GPU by purpose. `runtime_bytes`: CUDA context, NCCL and the like, outside the engine's allocator."""

    weights_bytes: int = 0
    projector_bytes: int = 0
    kv_bytes: int = 0
    compute_bytes: int = 0
    graphs_bytes: int = 0
    runtime_bytes: int = 0

    @property
    def needed_bytes(self) -> int:
        """Everything the engine takes on this GPU."""
        parts = (self.weights_bytes, self.projector_bytes, self.kv_bytes, self.compute_bytes)
        return sum(parts) + self.graphs_bytes + self.runtime_bytes


def all_free(_config: Configuration, rooms: Sequence[Room]) -> tuple[int, ...]:
    """Limits of an engine that takes what it finds."""
    return tuple(room.free_bytes for room in rooms)


def nothing_spare(_config: Configuration, rooms: Sequence[Room], _settings: Mapping[str, Setting]) -> tuple[int, ...]:
    """Spare bytes of an engine that takes what it needs and no more."""
    return (0,) * len(rooms)


class Footprints(Protocol):
    """The type of EngineMemory.footprints."""

    def __call__(
        self, config: Configuration, rooms: Sequence[Room], usable: Sequence[int] | None = None, /
    ) -> tuple[Footprint, ...]:
        """Bytes per GPU."""


@frozen
class EngineMemory:
    """How one engine uses memory; one module per engine builds one. Everything is pure.

    `split`: how it spreads over GPUs: tensor (every GPU holds a slice of each layer) or layer (whole layers per GPU).
    `footprints(config, rooms, usable)`: bytes per GPU, in the order of `rooms`. Whole layers are dealt by `usable`, the
    most that may be taken on each; None: all that is free.
    `host(config, rooms)`: host memory; everything when `rooms` is empty (CPU), else what does not sit on GPUs.
    `settings(config, rooms, usable)`: engine settings that make the plan true.
    `limits(config, rooms)`: the most each footprint may come to before the engine refuses or silently leaves the GPU.
    `spare(config, rooms, settings)`: what it takes beyond its footprint, as more KV cache, to fill its budget.
    """

    split: str
    footprints: Footprints
    host: Callable[[Configuration, Sequence[Room]], Footprint]
    settings: Callable[[Configuration, Sequence[Room], Sequence[int]], dict[str, Setting]]
    limits: Callable[[Configuration, Sequence[Room]], tuple[int, ...]] = all_free
    spare: Callable[[Configuration, Sequence[Room], Mapping[str, Setting]], tuple[int, ...]] = nothing_spare


# The KV cache is exact for every engine and type. Bytes that 32 elements take:
# GGML's q8_0 and q4_0 carry one f16 scale per 32 (ggml-common.h: block_q8_0, block_q4_0).
BLOCK = 32
BLOCK_BYTES = {"f32": 128, "f16": 64, "bf16": 64, "fp8": 32, "q8_0": 34, "q5_0": 22, "q4_0": 18}


def bytes_per_layer(text: Text, kv_type: str, tensor_parallel: int = 1) -> int:
    """KV bytes of one token in one layer on one GPU: 2 (K and V) x KV heads x head_dim x element size.

    head_dim is the model's own (128 for Mistral Small), never hidden/heads. With more GPUs than KV heads each GPU
    keeps one head. Source: vLLM's page size 2*block*kv_heads/t*head_dim*b; llama.cpp's n_embd_k_gqa.
    """
    heads = max(1, text.kv_heads // tensor_parallel)
    return 2 * heads * text.head_dim * BLOCK_BYTES[kv_type] // BLOCK


def bytes_per_token(text: Text, kv_type: str, tensor_parallel: int = 1) -> int:
    """KV bytes of one token over all layers on one GPU: 163,840 for Mistral Small in f16."""
    return text.layers * bytes_per_layer(text, kv_type, tensor_parallel)


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
