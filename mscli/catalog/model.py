"""What a model is: its architecture, its weight variants with exact bytes, and how it wants to be sampled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mscli.catalog.sampling import Sampling
from mscli.frozen import frozen

FORMATS = ("gguf", "safetensors-mistral", "safetensors-hf", "ollama")
QUANTISATIONS = (
    *("bf16", "f16", "fp8", "w8a8", "w4a16", "nvfp4"),
    *("q8_0", "q6_k", "q5_k_m", "q4_k_m", "iq4_xs"),
    *("bnb-8bit", "bnb-4bit", "isq-q8_0", "isq-q6k", "isq-q5k", "isq-q4k"),
)
CAPABILITIES = ("vision", "tools", "reasoning")
TOKENIZERS = ("v7", "v11", "v13")
REASONING = ("none", "think-text", "think-tokens")
SOURCES = ("hub", "ollama", "package")


@frozen
class Text:
    """The decoder's sizes. `head_dim` is stated, never hidden/heads: Mistral Small has 128, not 160."""

    parameters: int
    linear_parameters: int
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocabulary: int


@frozen
class Vision:
    """The vision encoder and its projector. `image_size` and `patch` in pixels."""

    tower_parameters: int
    projector_parameters: int
    layers: int
    hidden: int
    heads: int
    ffn: int
    patch: int
    image_size: int
    spatial_merge: int

    @property
    def max_patches(self) -> int:
        """Patches of the largest image, before merging."""
        return (self.image_size // self.patch) ** 2

    @property
    def max_image_tokens(self) -> int:
        """Prompt tokens of the largest image as Mistral counts: merged patches plus one break or end per row."""
        side = self.image_size // self.patch // self.spatial_merge
        return side * side + side


@frozen
class Architecture:
    """`vision` is None for text-only models."""

    text: Text
    vision: Vision | None


@frozen
class Price:
    """What `seller` took for the model through an API on `date`, in US dollars per million tokens. `instead`: what is
    sold in its place, where the model itself is no longer offered; None for the model itself."""

    seller: str
    instead: str | None
    input_usd_per_mtok: float
    output_usd_per_mtok: float
    date: str
    source: str


@frozen
class Source:
    """Where a variant's bytes come from.

    kind `hub`: `repository` on Hugging Face at `revision`, `files` needed (glob patterns allowed), `projector` file or
    None.
    kind `ollama`: `repository` is the library tag.
    kind `package`: `files` and `projector` are package data of mscli itself; nothing is downloaded.
    """

    kind: str
    repository: str
    revision: str
    files: tuple[str, ...]
    projector: str | None


@frozen
class Variant:
    """One way to store the weights.

    `weights_bytes`: text weights as the engine holds them, without the projector.
    `projector_bytes`: vision encoder and projector (0 for text only).
    `host_bytes`: the part of weights_bytes that stays in host memory even at full offload (llama.cpp's embedding).
    `download_bytes`: what is downloaded and stored on disk.
    `format`: one of FORMATS. `quantisation`: one of QUANTISATIONS; bnb and isq are made by the engine while loading.
    `bytes_source`: where the figures come from.
    """

    name: str
    format: str
    quantisation: str
    weights_bytes: int
    projector_bytes: int
    host_bytes: int
    download_bytes: int
    bytes_source: str
    source: Source


STAND_IN_COUNTS = 3
"""How many tokens a stand-in's tokenizer counts where the real one counts one, about."""


@frozen
class Model:
    """A model of the catalogue.

    `reasoning`: none, think-text (plain <think> text asked for by the system prompt: Magistral 2506) or
    think-tokens ([THINK] tokens: Magistral 2507 and later). `capabilities`: subset of {vision, tools, reasoning}.
    `tokenizer`: its tokenizer's version, one of TOKENIZERS, which says how conversations and calls are written; None
    where it isn't known. `stand_in`: True for scripted test models that only imitate a real one.
    """

    name: str
    title: str
    released: str
    license: str
    architecture: Architecture
    context_limit: int
    context_recommended: int
    capabilities: tuple[str, ...]
    reasoning: str
    tokenizer: str | None
    sampling: Sampling
    system_prompt: str | None
    prices: tuple[Price, ...]
    variants: Mapping[str, Variant]
    stand_in: bool
    path: Path
