"""The best profile for this machine, with the reason and the runners-up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mscli.catalog.gpus import GpuFacts
from mscli.catalog.model import Model
from mscli.catalog.profile import Profile
from mscli.inventory.inventory import Inventory
from mscli.planning.figures import gib, tokens
from mscli.planning.learned import Observation
from mscli.planning.plan import SAFE, Choice, Claim, NoFit, Overrides, Plan
from mscli.planning.verdict import Known, plan_once

Verdict = Plan | NoFit
READING_TOK_S = 6.0
Key = tuple[float, ...]


def choose(
    pairs: Sequence[tuple[Profile, Model]],
    inventory: Inventory,
    overrides: Overrides | None = None,
    claims: Sequence[Claim] = (),
    facts: Mapping[str, GpuFacts] | None = None,
    versions: Mapping[str, str] | None = None,
    observations: Sequence[Observation] = (),
) -> Choice:
    """Plan every profile and take the best automatic one that is safe, else the best that is tight.

    Preferred by quality (the profile's rank) unless the overrides says speed (predicted tokens per second) or context.
    A profile for the CPU, or one that offloads, is never taken unasked. `ranked` holds every verdict, best first.
    """
    asked = overrides or Overrides()
    known = Known(inventory, claims, facts or {}, versions or {}, observations)
    profiles = {profile.name: profile for profile, _ in pairs}
    verdicts = [plan_once(profile, model, asked, known) for profile, model in pairs if _wanted(profile, asked)]
    ranked = tuple(sorted(verdicts, key=_key(profiles, asked.prefer or "quality")))
    if not ranked:
        return Choice(None, f"no profile runs on {asked.engine}", ())
    first = ranked[0]
    if isinstance(first, NoFit) or not _automatic(profiles[first.profile]):
        return Choice(None, _why_none(ranked, inventory), ranked)
    return Choice(first, _why(first, ranked, profiles, asked.prefer or "quality"), ranked)


def _wanted(profile: Profile, overrides: Overrides) -> bool:
    return overrides.engine is None or profile.engine == overrides.engine


def _automatic(profile: Profile) -> bool:
    return profile.automatic and profile.device == "gpu"


def _key(profiles: Mapping[str, Profile], prefer: str) -> Callable[[Verdict], Key]:
    """Sort key, smallest is best: automatic and safe, automatic and tight, by name only, not at all (least missing);
    within each, what answers at reading speed first."""

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
        if not _automatic(profile):
            group += 2.0
        return (group, float(_slow(verdict)), *_preference(verdict, profile, prefer))

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


def _why(chosen: Plan, ranked: Sequence[Verdict], profiles: Mapping[str, Profile], prefer: str) -> str:
    best = {"quality": "best quality", "speed": "fastest", "context": "longest context"}[prefer]
    where = f"GPU {', '.join(map(str, chosen.gpus))}"
    text = f"{best} that fits {'safely' if chosen.verdict == SAFE else 'tightly'}: {tokens(chosen.context)} on {where}"
    better = [
        verdict for verdict in ranked
        if isinstance(verdict, NoFit) and verdict.missing_bytes
        and _automatic(profiles[verdict.profile]) and profiles[verdict.profile].rank < profiles[chosen.profile].rank
    ]  # fmt: skip
    if not better:
        return text
    refused = "; ".join(f"{item.profile} misses {gib(item.missing_bytes)}" for item in better[:3])
    return f"{text}. Better ones do not fit: {refused}"


def _why_none(ranked: Sequence[Verdict], inventory: Inventory) -> str:
    if not inventory.devices:
        return "no GPU is visible, and nothing runs on the CPU unasked"
    closest = next((item for item in ranked if isinstance(item, NoFit)), None)
    if closest is None:
        return "what fits runs only when named"
    return f"nothing fits by itself; closest is {closest.profile}: {closest.reasons[0]}"
