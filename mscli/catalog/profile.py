"""What to run: one model variant on one engine, with the limits within which the planner may choose."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mscli.catalog.model import Variant
from mscli.frozen import frozen, replace

ENGINES = ("ollama", "vllm", "vllm-docker", "llama.cpp", "transformers", "mistral.rs")
# As their makers write them.
ENGINE_TITLES = {"ollama": "Ollama", "vllm": "vLLM", "vllm-docker": "Docker", "transformers": "Transformers"}
KV_TYPES = ("f16", "q8_0", "q4_0", "fp8")

TENSOR_PARALLEL_ENGINES = ("vllm", "vllm-docker", "mistral.rs")
"""Engines that split every layer over the GPUs; the others give each GPU whole layers."""

OptionValue = str | int | float | bool


@frozen
class ContextRange:
    """Tokens. The planner takes the largest context from `floor` to `cap` that fits; `target` None: as much as fits."""

    floor: int
    target: int | None
    cap: int


@frozen
class Needs:
    """What the machine must have besides GPU memory. None: nothing is asked."""

    compute_capability: str | None
    cuda: str | None
    ram_bytes: int | None
    disk_bytes: int | None


@frozen
class Profile:
    """One deployable choice.

    `instead`: for an old name of a way, what to type now (a name and options); "" for every other profile.
    `device`: gpu or cpu. `gpus`: the GPU counts that it may use, in the order to try (empty on the CPU).
    `kv_types`: KV cache types in the order to try. `images`: images allowed per request (0: text only); with
    `drop_images` the plan may allow none, where they do not fit or take too much of the context.
    `users`: concurrent requests planned for. `offload`: part of the weights may sit in host memory, knowingly.
    `automatic`: False keeps it out of the choice that `mscli up` makes without a name.
    `rank`: lower is preferred when several profiles fit equally well.
    `options`: further engine flags without their dashes. `env`: environment of the engine.
    """

    name: str
    title: str
    engine: str
    model: str
    variant: str
    device: str
    gpus: tuple[int, ...]
    context: ContextRange
    kv_types: tuple[str, ...]
    images: int
    drop_images: bool
    users: int
    offload: bool
    automatic: bool
    rank: int
    needs: Needs
    host: str
    port: int | None
    image: str | None
    options: Mapping[str, OptionValue]
    env: Mapping[str, str]
    notes: str
    path: Path
    instead: str = ""


def on_engine(profile: Profile, engine: str | None) -> Profile:
    """The profile as it runs on `engine`: one for vLLM in a container too, where it names an image."""
    contained = engine == "vllm-docker" and profile.engine == "vllm" and profile.image
    return replace(profile, engine="vllm-docker") if contained else profile


def loads(engine: str, variant: Variant) -> bool:
    """Whether `engine` can load weights stored as `variant` (the file format, and who quantises while loading)."""
    at_load = variant.quantisation.split("-")[0]
    if engine == "mistral.rs":
        return variant.format == "safetensors-hf" and at_load in ("isq", "bf16")
    if engine == "transformers":
        return variant.format == "safetensors-hf" and at_load in ("bf16", "f16", "bnb")
    if engine in ("vllm", "vllm-docker"):
        return variant.format.startswith("safetensors") and at_load not in ("isq", "bnb")
    return variant.format == {"ollama": "ollama", "llama.cpp": "gguf"}[engine]
