"""The nearest overrides that works, as a flag to type."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mscli.catalog.model import Model
from mscli.catalog.profile import Profile
from mscli.planning.plan import Overrides, Plan
from mscli.planning.request import KV_BY_ENGINE, loads
from mscli.planning.search import ROUNDING, last_true
from mscli.planning.verdict import Known, plan_once

LEAST_CONTEXT = 2048


def nearest(profile: Profile, model: Model, overrides: Overrides, known: Known) -> str | None:
    """The first that works of: another KV type, a shorter context, fewer users, no images, other GPUs, a smaller
    variant, offloading."""
    for flag, changed in _changes(profile, model, overrides, known):
        if isinstance(plan_once(profile, model, changed, known), Plan):
            return flag
    return None


def _changes(profile: Profile, model: Model, overrides: Overrides, known: Known) -> Iterator[tuple[str, Overrides]]:
    if overrides.kv_type or overrides.context:
        for kind in KV_BY_ENGINE[profile.engine]:
            if kind != overrides.kv_type:
                yield f"--kv {kind}", replace(overrides, kv_type=kind)
    yield from _shorter(profile, model, overrides, known)
    if (overrides.users or profile.users) > 1:
        yield from _fewer_users(profile, model, overrides, known)
    if overrides.images or (overrides.images is None and profile.images):
        yield "--images 0", replace(overrides, images=0)
    yield from _other_gpus(profile, model, overrides, known)
    for name in _smaller_variants(profile, model, overrides):
        yield f"--variant {name}", replace(overrides, variant=name)
    if not (overrides.offload or profile.offload) and profile.device == "gpu":
        yield "--offload", replace(overrides, offload=True)


def _shorter(profile: Profile, model: Model, overrides: Overrides, known: Known) -> Iterator[tuple[str, Overrides]]:
    """The longest context that fits below the one asked for (or the profile's floor)."""
    asked = overrides.context or profile.context.floor
    least = min(LEAST_CONTEXT, asked)
    if not isinstance(plan_once(profile, model, replace(overrides, context=least), known), Plan):
        return
    steps = last_true(
        lambda step: isinstance(plan_once(profile, model, replace(overrides, context=step * ROUNDING), known), Plan),
        least // ROUNDING or 1,
        asked // ROUNDING,
    )
    context = max(least, steps * ROUNDING)
    yield f"--ctx {context}", replace(overrides, context=context)


def _other_gpus(profile: Profile, model: Model, overrides: Overrides, known: Known) -> Iterator[tuple[str, Overrides]]:
    """The GPUs the planner would take itself, or, where it has too few for the profile, the roomiest one alone."""
    if overrides.gpus:
        found = plan_once(profile, model, replace(overrides, gpus=None), known)
        if isinstance(found, Plan):
            yield f"--gpus {','.join(map(str, found.gpus))}", replace(overrides, gpus=None)
    elif known.rooms[0] and 1 not in profile.gpus:
        roomiest = max(known.rooms[0], key=lambda room: room.free_bytes)
        yield f"--gpus {roomiest.gpu}", replace(overrides, gpus=(roomiest.uuid,))


def _fewer_users(profile: Profile, model: Model, overrides: Overrides, known: Known) -> Iterator[tuple[str, Overrides]]:
    most = last_true(
        lambda users: isinstance(plan_once(profile, model, replace(overrides, users=users), known), Plan),
        1,
        (overrides.users or profile.users) - 1,
    )
    if most:
        yield f"--users {most}", replace(overrides, users=most)


def _smaller_variants(profile: Profile, model: Model, overrides: Overrides) -> list[str]:
    """Variants that this engine loads, smaller than the one asked for, largest first."""
    now = model.variants.get(overrides.variant or profile.variant)
    limit = now.weights_bytes if now else 0
    fitting = [
        variant for variant in model.variants.values()
        if loads(profile.engine, variant) and variant.weights_bytes < limit
    ]  # fmt: skip
    return [variant.name for variant in sorted(fitting, key=lambda item: -item.weights_bytes)]
