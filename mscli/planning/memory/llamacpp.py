"""llama.cpp: weights, KV and compute buffers, one set per GPU, whole layers spread over GPUs.

Sources: llama.cpp's own buffer lines (model, KV, compute), src/llama-kv-cache.cpp, src/llama-model.cpp (layer split),
tools/mtmd (projector).
"""

from __future__ import annotations

from collections.abc import Sequence

from mscli.planning.devices import Room
from mscli.planning.memory import (
    Configuration,
    EngineMemory,
    Footprint,
    Setting,
    Stage,
    bytes_per_layer,
    bytes_per_token,
    layer_counts,
    layers,
    spread,
)
from mscli.planning.plan import GIB, MIB

UBATCH = 512
CUDA_CONTEXT = 4 * GIB // 10
KV_PADDING = 256
IMAGE_TOKENS = 1024


def footprints(
    config: Configuration, rooms: Sequence[Room], usable: Sequence[int] | None = None
) -> tuple[Footprint, ...]:
    """Layers by free memory (--tensor-split); the projector and the image buffer on the first GPU."""
    return spread(config, rooms, stage(config, len(rooms), projector(config)), usable)


def projector(config: Configuration) -> int:
    """The projector's bytes; 0 when no images are allowed, for then it is not loaded (no --mmproj)."""
    return config.variant.projector_bytes if config.images else 0


def stage(config: Configuration, gpus: int, projector_bytes: int) -> Stage:
    """What each GPU holds beside layers. The token embedding stays in host memory even at full offload."""
    return Stage(
        kv_type=config.kv_type,
        kv_tokens=cells(config),
        compute=compute(config, gpus),
        projector=projector_bytes,
        image=image_buffer(config),
        runtime=CUDA_CONTEXT,
        embedding_on_gpu=False,
    )


def cells(config: Configuration) -> int:
    """KV cells over all users, each with a padded context of its own."""
    return padded(config.context) * config.users


def compute(config: Configuration, gpus: int = 1, ubatch: int = UBATCH) -> int:
    """Compute buffer of one GPU: activations of one micro-batch, plus the f16 KQ mask of context x micro-batch.

    ubatch x (3 ffn + 5 hidden) x 4 bytes: 242 MiB for Mistral Small at 512. Source: llama.cpp's own projection (`fit`)
    for a model of the 24B's exact shape, build 11549, at 4,096 to 131,072 tokens and micro-batches of 256 to 2,048:
    equal to the MiB. With layers on the host 1.2 x (published ratios: 1.2 to 2.7; two of a 5070 Ti agree with 1.2).
    With several GPUs four copies of the inputs, the mask among them, are kept for pipelining (GGML_SCHED_MAX_COPIES).
    """
    text = config.text
    activations = ubatch * (3 * text.ffn + 5 * text.hidden) * 4
    mask = 2 * padded(config.context) * ubatch * (4 if gpus > 1 else 1)
    return activations * (12 if config.host_layers else 10) // 10 + mask


def padded(context: int) -> int:
    """A context in whole blocks of 256 cells (llama-context.cpp, n_ctx_seq)."""
    return -(-context // KV_PADDING) * KV_PADDING


def image_buffer(config: Configuration) -> int:
    """The image encoder's compute buffer with flash attention: patches x (3 ffn + 4 hidden) x 4 bytes.

    64.3 MiB at the warm-up size of 448 x 448 (logged, equal to 0.5 %); it grows with the first large image, up to 1,024
    merged tokens = 4,096 patches (mtmd's limit): 256 MiB. 0 when no images are allowed.
    """
    vision = config.model.architecture.vision
    if not config.images or vision is None or not config.variant.projector_bytes:
        return 0
    patches = min(vision.max_patches, IMAGE_TOKENS * vision.spatial_merge**2)
    return patches * (3 * vision.ffn + 4 * vision.hidden) * 4


def host(config: Configuration, rooms: Sequence[Room]) -> Footprint:
    """On the CPU everything; beside GPUs the token embedding and the layers that stay, with their KV."""
    cut, per_layer = layers(config.text, config.variant), bytes_per_layer(config.text, config.kv_type)
    if rooms:
        return Footprint(
            weights_bytes=cut.embedding + config.host_layers * cut.layer,
            kv_bytes=config.host_layers * cells(config) * per_layer,
            runtime_bytes=256 * MIB,
        )
    kv = cells(config) * bytes_per_token(config.text, config.kv_type)
    compute_bytes = compute(config) + image_buffer(config)
    return Footprint(config.variant.weights_bytes, projector(config), kv, compute_bytes, 0, 64 * MIB)


def settings(config: Configuration, rooms: Sequence[Room], usable: Sequence[int]) -> dict[str, Setting]:
    """gpu_layers (99 means all), ubatch, and the tensor split where layers are spread over GPUs."""
    if not rooms:
        return {"gpu_layers": 0, "ubatch_size": UBATCH}
    found: dict[str, Setting] = {"gpu_layers": config.text.layers + 1 - config.host_layers, "ubatch_size": UBATCH}
    if len(rooms) > 1:
        counts = list(layer_counts(config, rooms, stage(config, len(rooms), projector(config)), usable))
        counts[-1] += 1  # the output matrix counts as a layer
        found["tensor_split"] = ",".join(map(str, counts))
    return found


# Layers and context are passed explicitly, so the engine keeps no reserve of its own.
MEMORY = EngineMemory("layer", footprints, host, settings)
