"""What one engine takes on each GPU: the question (Configuration), the answer (Footprint), and the contract that one
file per engine fulfils; and the bytes of a KV cache. All sizes are int bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from mscli.catalog.model import Model, Text, Variant
from mscli.frozen import field, frozen
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
