"""Plans made from what is known: one profile with the nearest options that work, or the best of all profiles.

Pure: the same inventory, overrides and claims always give the same plan.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from mscli.catalog.model import Model
from mscli.catalog.profile import Profile, loads
from mscli.frozen import replace
from mscli.planning.known import Known
from mscli.planning.plan import ENGINE_MISSING, SAFE, Choice, NoFit, Overrides, Plan, gib, tokens
from mscli.planning.request import KV_BY_ENGINE, too_short
from mscli.planning.search import ROUNDING, last_true
from mscli.planning.verdict import MOST_FOR_IMAGES, plan_once


def make(
    profile: Profile,
    model: Model,
    known: Known,
    overrides: Overrides | None = None,
) -> Plan | NoFit:
    """Plan `profile` on this machine from the memory that is free now; where it does not fit, with what would."""
    asked = overrides or Overrides()
    outcome = known.with_engine(plan_once(profile, model, asked, known), profile.device)
    if isinstance(outcome, Plan) or outcome.nearest:
        return outcome
    return replace(outcome, nearest=nearest(profile, model, asked, known))


LEAST_CONTEXT = 2048
# How the reason begins where only the driver is in the way.
DRIVER_TOO_OLD = "the driver is too old"


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


Verdict = Plan | NoFit
READING_TOK_S = 6.0
Key = tuple[float, ...]


def choose(
    pairs: Sequence[tuple[Profile, Model]],
    known: Known,
    overrides: Overrides | None = None,
) -> Choice:
    """Plan every profile and take the best automatic one that is safe, else the best that is tight.

    Preferred by quality (the profile's rank) unless the overrides says speed (predicted tokens per second) or context.
    A profile for the CPU, or one that offloads, is only taken by name, and none whose engine cannot be had here.
    `ranked` holds every verdict, best first.
    """
    asked = overrides or Overrides()
    profiles = {profile.name: profile for profile, _ in pairs}
    verdicts = [
        known.with_engine(plan_once(profile, model, asked, known), profile.device)
        for profile, model in pairs
        if _wanted(profile, asked)
    ]
    models = {profile.name: model for profile, model in pairs}
    short = {
        each.profile for each in verdicts if isinstance(each, Plan) and too_short(each, models[each.profile], asked)
    }
    prefer = asked.prefer or "quality"
    wanted = asked.images is None and prefer == "quality"
    seeing = _seeing_instead(verdicts, profiles, models) if wanted else {}
    verdicts = [_said(each, seeing) for each in verdicts]
    ranked = tuple(sorted(verdicts, key=_key(profiles, prefer, short, seeing)))
    if not ranked:
        return Choice(None, f"no profile runs on {asked.engine}", ())
    first = ranked[0]
    if isinstance(first, NoFit) or not _taken(first, profiles[first.profile]):
        return Choice(None, _why_none(pairs, ranked, asked, known), ranked)
    return Choice(first, _why(first, ranked, profiles, prefer, seeing), ranked)


def _wanted(profile: Profile, overrides: Overrides) -> bool:
    return overrides.engine is None or profile.engine == overrides.engine


def _automatic(profile: Profile) -> bool:
    return profile.automatic and profile.device == "gpu"


def _taken(plan: Plan, profile: Profile) -> bool:
    """Whether a plan that fits may be taken unasked: its engine is here, or mscli can install it here."""
    return _automatic(profile) and plan.engine_state != ENGINE_MISSING


def _seeing_instead(
    verdicts: Sequence[Verdict], profiles: Mapping[str, Profile], models: Mapping[str, Model]
) -> dict[str, Plan]:
    """Text-only plan -> the best plan of the same model that takes images, with as many bits, and at reading speed."""

    def as_good(seeing: Plan, text: Plan) -> bool:
        sizes = [models[each.profile].variants[each.variant].weights_bytes for each in (seeing, text)]
        better = seeing.verdict == SAFE or text.verdict != SAFE
        return seeing.model == text.model and sizes[0] >= sizes[1] and better and not _slow(seeing)

    plans = [each for each in verdicts if isinstance(each, Plan) and _taken(each, profiles[each.profile])]
    ranked = sorted((each for each in plans if each.images), key=lambda each: profiles[each.profile].rank)
    found = {
        text.profile: next((each for each in ranked if as_good(each, text)), None)
        for text in plans
        if not text.images and models[text.profile].architecture.vision
    }
    return {name: plan for name, plan in found.items() if plan}


def _gives_way(text: Plan, seeing: Mapping[str, Plan]) -> bool:
    """Whether a text-only plan comes after the one that takes images: on two cards, where that costs no more of the
    context than images may cost within a profile. On one card, and on four (whose layers work one after the other), it
    only says so."""
    other = seeing.get(text.profile)
    return other is not None and len(text.gpus) == 2 and other.context >= (1 - MOST_FOR_IMAGES) * text.context


def _said(verdict: Verdict, seeing: Mapping[str, Plan]) -> Verdict:
    """A text-only plan with the step that says what images would cost, and by which profile they can be had."""
    other = seeing.get(verdict.profile)
    if other is None or isinstance(verdict, NoFit):
        return verdict
    fewer = verdict.context - other.context
    cost = f"would cost {tokens(fewer)} of context" if fewer > 0 else "cost no context"
    step = f"text only: images {cost}, with {other.profile}"
    return replace(verdict, steps=(*verdict.steps, step))


def _key(
    profiles: Mapping[str, Profile], prefer: str, short: Collection[str], seeing: Mapping[str, Plan]
) -> Callable[[Verdict], Key]:
    """Sort key, smallest is best: automatic and safe, automatic and tight, by name only, not at all (least missing);
    within each, what answers at reading speed first, then what has the context that is wanted, then what had to give up
    images or gives way to what takes them. `short`: who has not that context; `seeing`: of `_seeing_instead`."""

    def key(verdict: Verdict) -> Key:
        profile = profiles[verdict.profile]
        if isinstance(verdict, NoFit):
            return (
                4.0,
                float(not profile.automatic),
                float(not verdict.missing_bytes),
                float(verdict.missing_bytes),
                float(profile.rank),
            )
        group = 0.0 if verdict.verdict == SAFE else 1.0
        if not _taken(verdict, profile):
            group += 2.0
        blind = verdict.images_dropped or _gives_way(verdict, seeing)
        behind = (float(_slow(verdict)), float(verdict.profile in short), float(blind))
        return (group, *behind, *_preference(verdict, profile, prefer))

    return key


def _slow(plan: Plan) -> bool:
    """Slower than people read: the best quality is of no use then, when another profile is faster."""
    return plan.speed is not None and plan.speed.decode_tok_s[1] < READING_TOK_S


def _preference(plan: Plan, profile: Profile, prefer: str) -> Key:
    if prefer == "context":
        return (-float(plan.context), float(profile.rank))
    if prefer == "speed":
        return (-(plan.speed.decode_tok_s[1] if plan.speed else 0.0), float(profile.rank))
    return (float(profile.rank), -float(plan.context))


def _why(
    chosen: Plan,
    ranked: Sequence[Verdict],
    profiles: Mapping[str, Profile],
    prefer: str,
    seeing: Mapping[str, Plan],
) -> str:
    best = {"quality": "best overall", "speed": "fastest", "context": "longest context"}[prefer]
    where = f"GPU {', '.join(map(str, chosen.gpus))}"
    text = f"{best} that fits{'' if chosen.verdict == SAFE else ' tightly'}: {tokens(chosen.context)} on {where}"
    blind = [each.profile for each in ranked if isinstance(each, Plan) and _gives_way(each, seeing)]
    if passed := [name for name in blind if seeing[name] is chosen]:
        text += f"; takes images, which {passed[0]} does not"
    text += _without_engine(ranked, profiles, profiles[chosen.profile].rank if prefer == "quality" else 0)
    better = [] if prefer != "quality" else [
        verdict for verdict in ranked
        if isinstance(verdict, NoFit) and verdict.missing_bytes
        and _automatic(profiles[verdict.profile]) and profiles[verdict.profile].rank < profiles[chosen.profile].rank
    ]  # fmt: skip
    if not better:
        return text
    refused = ", ".join(f"{item.profile} ({gib(item.missing_bytes)} short)" for item in better[:2])
    return f"{text}; too big: {refused}"


def _without_engine(ranked: Sequence[Verdict], profiles: Mapping[str, Profile], rank: float) -> str:
    """The best profile below `rank` that fits and was passed over because its engine cannot be had here, and why."""
    over = [
        each for each in ranked
        if isinstance(each, Plan) and each.engine_state == ENGINE_MISSING
        and _automatic(profiles[each.profile]) and profiles[each.profile].rank < rank
    ]  # fmt: skip
    return f"; not {over[0].profile}: {over[0].reasons[-1]}" if over else ""


def _why_none(pairs: Sequence[tuple[Profile, Model]], ranked: Sequence[Verdict], asked: Overrides, known: Known) -> str:
    if not known.inventory.devices:
        return "no GPU is visible (see mscli doctor); mscli does not fall back to the CPU on its own"
    if text := _without_engine(ranked, {profile.name: profile for profile, _ in pairs}, math.inf):
        return f"no engine for what fits{text}"
    if waiting := _with_a_newer_driver(pairs, ranked, asked, known):
        return f"{DRIVER_TOO_OLD}; with a newer one {waiting.profile} would fit: {'; '.join(waiting.reasons)}"
    automatic = {profile.name for profile, _ in pairs if _automatic(profile)}
    refused = [item for item in ranked if isinstance(item, NoFit) and item.profile in automatic]
    if not refused:
        return "the profiles that fit are started only by name"
    short = min(refused, key=lambda item: item.missing_bytes or math.inf)
    busy = short.reasons[1:2] if short.cause == "gpu_busy" else ()  # who holds the memory
    return f"nothing fits; the closest is {short.profile}: {'; '.join((short.reasons[0], *busy))}"


def _with_a_newer_driver(
    pairs: Sequence[tuple[Profile, Model]], ranked: Sequence[Verdict], asked: Overrides, known: Known
) -> NoFit | None:
    """The refusal of the best automatic profile that only the driver keeps from fitting."""
    refused = {item.profile: item for item in ranked if isinstance(item, NoFit) and item.cause == "driver_too_old"}
    newer = replace(known, inventory=replace(known.inventory, driver=None, cuda=None))
    plans = [
        (profile.rank, outcome.profile)
        for profile, model in pairs
        if profile.name in refused
        and _automatic(profile)
        and isinstance(outcome := plan_once(profile, model, asked, newer), Plan)
    ]
    return refused[min(plans)[1]] if plans else None
