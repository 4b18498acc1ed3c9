"""The profile and the user's overrides made one: the limits within which the planner may choose, and what the engine
can load at all."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module

from mscli.catalog.model import STAND_IN_COUNTS, Model, Variant
from mscli.catalog.profile import Profile, loads
from mscli.frozen import field, frozen
from mscli.planning.memory import Configuration, EngineMemory
from mscli.planning.plan import GpuMemory, NoFit, Overrides, Plan, Refusal, tokens

COMFORTABLE = 8192
KV_BY_ENGINE = {
    "ollama": ("f16", "q8_0", "q4_0"),
    "vllm": ("f16", "fp8"),
    "vllm-docker": ("f16", "fp8"),
    "llama.cpp": ("f16", "q8_0", "q4_0"),
    "transformers": ("f16",),
    "mistral.rs": ("f16",),
}
# Engine -> the module below memory/ that knows its use of memory, and the value there; only that one is loaded.
_FORMULAS = {
    "ollama": ("ollama", "MEMORY"),
    "vllm": ("vllm", "MEMORY"),
    "vllm-docker": ("vllm", "MEMORY"),
    "llama.cpp": ("llamacpp", "MEMORY"),
    "transformers": ("transformers", "MEMORY"),
    "mistral.rs": ("transformers", "MISTRALRS"),
}


def memory_of(engine: str) -> EngineMemory:
    """How an engine uses memory. Raises KeyError for an engine that is not planned."""
    module, name = _FORMULAS[engine]
    found: EngineMemory = getattr(import_module(f"mscli.planning.memory.{module}"), name)
    return found


@frozen
class Request:
    """What to plan. Context lengths are tokens per user; `target` None means as long as useful."""

    profile: Profile
    model: Model
    variant: Variant
    floor: int
    target: int | None
    cap: int
    kv_types: tuple[str, ...]
    images: int
    users: int
    offload: bool
    prefer: str
    gpus: tuple[str, ...] | None
    version: tuple[int, ...] | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def ceiling(self) -> int:
        """The longest context worth having."""
        return self.target or self.cap

    @property
    def comfortable(self) -> int:
        """A context worth a smaller KV type: 8,192 tokens, or the floor where that is higher."""
        return min(max(self.floor, COMFORTABLE), self.ceiling)

    @property
    def memory(self) -> EngineMemory:
        """The engine's memory model."""
        return memory_of(self.profile.engine)

    @property
    def gpu_counts(self) -> tuple[int, ...]:
        """Numbers of GPUs to try, in order."""
        return tuple(count for count in self.profile.gpus if self.divides_by(count))

    def divides_by(self, count: int) -> bool:
        """Whether the engine can split the model over `count` GPUs. With tensor parallelism both head counts must
        divide (or one KV head is copied)."""
        if self.memory.split == "layer":
            return True
        text = self.model.architecture.text
        heads = text.heads % count == 0 and text.ffn % count == 0
        return heads and (text.kv_heads % count == 0 or count % text.kv_heads == 0)

    def configuration(self, context: int, kv_type: str, host_layers: int = 0) -> Configuration:
        """This request at one context length and KV type."""
        return Configuration(
            self.model, self.variant, context, kv_type, self.users, self.images, host_layers, self.version,
            self.profile.options,
        )  # fmt: skip

    def refused(
        self,
        reasons: tuple[str, ...],
        missing_bytes: int = 0,
        nearest: str | None = None,
        memory: tuple[GpuMemory, ...] = (),
        cause: str | None = None,
    ) -> NoFit:
        """The NoFit of this request."""
        profile = self.profile
        return NoFit(
            profile.name, profile.engine, self.model.name, self.variant.name, reasons, missing_bytes, nearest, memory,
            cause=cause,
        )  # fmt: skip


def resolve(profile: Profile, model: Model, overrides: Overrides, version: str | None = None) -> Request | Refusal:
    """Merge the overrides into the profile; a Refusal says which no machine can grant, and what would work."""
    variant = model.variants.get(overrides.variant or profile.variant)
    if variant is None or not loads(profile.engine, variant):
        return _unknown_variant(profile, model, overrides.variant or profile.variant)
    kv_types = (overrides.kv_type,) if overrides.kv_type else profile.kv_types
    images = profile.images if overrides.images is None else overrides.images
    for refusal in (
        _wrong_engine(profile, overrides),
        _wrong_context(model, overrides),
        _wrong_kv_type(profile, kv_types),
        _wrong_images(model, variant, images),
        _wrong_users(overrides),
    ):
        if refusal:
            return refusal
    cap = min(profile.context.cap, model.context_recommended, model.context_limit)
    floor, target = min(profile.context.floor, cap), profile.context.target
    if least := least_context(model, overrides):
        floor, target = max(floor, min(least, cap)), target and max(target, least)
    if overrides.prefer == "context":
        target = None
    if overrides.context:
        floor = target = cap = overrides.context
    return Request(
        profile=profile, model=model, variant=variant,
        floor=floor, target=None if target is None else min(target, cap), cap=cap,
        kv_types=kv_types, images=images, users=overrides.users or profile.users,
        offload=overrides.offload or profile.offload, prefer=overrides.prefer or "quality", gpus=overrides.gpus,
        version=parse_version(version), notes=_notes(model, overrides),
    )  # fmt: skip


def least_context(model: Model, overrides: Overrides) -> int | None:
    """The context that is wanted at least, in tokens of the model's own tokenizer; None where none is."""
    if overrides.least_context is None:
        return None
    return overrides.least_context * (STAND_IN_COUNTS if model.stand_in else 1)


def too_short(plan: Plan, model: Model, overrides: Overrides) -> str | None:
    """What to say of a plan with less context than coding agents want; None for one that has enough."""
    least = least_context(model, overrides)
    if least is None or plan.context >= least:
        return None
    found = f"{plan.profile} gets a context of {tokens(plan.context)} here; coding agents want {least:,} or more"
    return f"{found} (what each needs: mscli launch)"


@lru_cache
def parse_version(text: str | None) -> tuple[int, ...] | None:
    """The leading numbers of "0.21.0+cu12" or "v0.30.1": (0, 21, 0); None when there are none."""
    numbers: list[int] = []
    for part in (text or "").lstrip("vV").split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers) or None


def _unknown_variant(profile: Profile, model: Model, name: str) -> Refusal:
    from difflib import get_close_matches  # only for a wrong word

    known = [variant.name for variant in model.variants.values() if loads(profile.engine, variant)]
    close = get_close_matches(name, known, n=1, cutoff=0.0)
    reason = f"{model.title} has no variant {name} for {profile.engine}; it has {', '.join(known)}"
    return Refusal((reason,), f"--variant {close[0]}" if close else None, "model_not_found")


def _wrong_engine(profile: Profile, overrides: Overrides) -> Refusal | None:
    if overrides.engine is None or overrides.engine == profile.engine:
        return None
    reason = f"profile {profile.name} runs on {profile.engine}, not on {overrides.engine}"
    return Refusal((reason,), f"--engine {profile.engine}")


def _wrong_context(model: Model, overrides: Overrides) -> Refusal | None:
    if overrides.context is None or 0 < overrides.context <= model.context_limit:
        return None
    reason = f"--ctx {overrides.context}: {model.title} supports 1 to {tokens(model.context_limit)}"
    return Refusal((reason,), f"--ctx {model.context_limit}")


def _wrong_kv_type(profile: Profile, kv_types: tuple[str, ...]) -> Refusal | None:
    known = KV_BY_ENGINE[profile.engine]
    wrong = [kind for kind in kv_types if kind not in known]
    if not wrong:
        return None
    reason = f"{profile.engine} has no {wrong[0]} KV cache; it has {', '.join(known)}"
    return Refusal((reason,), f"--kv {known[-1]}", "cli_flags")


def _wrong_images(model: Model, variant: Variant, images: int) -> Refusal | None:
    if images <= 0 or (model.architecture.vision and variant.projector_bytes):
        return None
    return Refusal((f"--images {images}: {model.title} {variant.name} is text only",), "--images 0", "vision")


def _wrong_users(overrides: Overrides) -> Refusal | None:
    if overrides.users is None or overrides.users > 0:
        return None
    return Refusal((f"--users {overrides.users}: must be at least 1",), "--users 1")


def _notes(model: Model, overrides: Overrides) -> tuple[str, ...]:
    if overrides.context and overrides.context > model.context_recommended:
        return (
            f"{model.title} is recommended for up to {tokens(model.context_recommended)}; quality may drop beyond that",
        )
    return ()
