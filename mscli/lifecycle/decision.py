"""What to run on this machine: the named profile planned, or the best one chosen, with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from mscli.catalog.load import Catalog, Ways, load_catalog, load_profile_file
from mscli.catalog.model import Model, Variant
from mscli.catalog.profile import Profile, on_engine
from mscli.errors import Code, MscliError
from mscli.frozen import frozen, replace
from mscli.instances.records import Request
from mscli.inventory.inventory import Inventory
from mscli.lifecycle.pinned import catalogue, one
from mscli.lifecycle.snapshot import Snapshot, imagine, see
from mscli.paths import Places, shipped_profiles
from mscli.planning.adjustment import NOTHING, Adjustment
from mscli.planning.make import DRIVER_TOO_OLD, choose, make
from mscli.planning.plan import Choice, NoFit, Overrides, Plan
from mscli.planning.requirements import no_device_cause

# What to change of a profile before it is planned, given what is seen of the machine.
Adjust = Callable[[Profile, Snapshot], Adjustment]


@frozen
class Decision:
    """What will run and why. `choice`: all verdicts, when the profile was chosen and not named. `adjustment`: how
    `profile` differs from the one in the catalogue."""

    profile: Profile
    model: Model
    variant: Variant
    plan: Plan
    snapshot: Snapshot
    choice: Choice | None
    adjustment: Adjustment = NOTHING


def decide(
    request: Request,
    places: Places,
    replaced: str | None = None,
    adjust: Adjust | None = None,
    stay: Choice | None = None,
    installed_only: bool = False,
) -> Decision:
    """Plan the request on this machine, from memory that is free now.

    The request names a profile, or a model or family (the best way to run it), or nothing (the best of all).
    `replaced`: the name of an instance whose memory will come back first. `adjust`: asked what to change of the
    profile. `stay`: where no profile is named, the choice to stay with. `installed_only`: choose among engines that
    are here. Raises NO_GPU or NO_FIT with the figures, PROFILE_UNKNOWN or PROFILE_INVALID.
    """
    chosen_before = stay.chosen.profile if stay and stay.chosen and request.file is None else None
    named = _named(replace(request, profile=chosen_before) if chosen_before else request, places)
    if isinstance(named, _Open):
        return _adjusted(_best(named, request.overrides, places, replaced, installed_only), request.overrides, adjust)
    profile, model = on_engine(named[0], request.overrides.engine), named[1]
    snapshot = see(
        places, ((profile.engine, profile.device),), replaced, gpus=profile.device == "gpu", adopt=request.adopt
    )
    change = adjust(profile, snapshot) if adjust else NOTHING
    decision = _planned(change, profile, model, snapshot, request.overrides)
    return replace(decision, choice=stay) if chosen_before else decision


@frozen
class _Open:
    """A request that leaves the profile open: any automatic one, or those of `ways` alone."""

    catalog: Catalog
    ways: Ways | None


def _adjusted(decision: Decision, overrides: Overrides, adjust: Adjust | None) -> Decision:
    """The best profile, planned again with what is to be changed of it."""
    change = adjust(decision.profile, decision.snapshot) if adjust else NOTHING
    if change == NOTHING:
        return decision
    again = _planned(change, decision.profile, decision.model, decision.snapshot, overrides)
    return replace(again, choice=decision.choice)


def _planned(change: Adjustment, profile: Profile, model: Model, snapshot: Snapshot, overrides: Overrides) -> Decision:
    """Raises NO_FIT or NO_GPU."""
    profile = change.applied(profile)
    outcome = plan_one(profile, model, snapshot, overrides)
    if isinstance(outcome, NoFit):
        raise _no_fit(profile, outcome, snapshot.inventory)
    return Decision(profile, model, model.variants[outcome.variant], change.settled(outcome), snapshot, None, change)


@frozen
class Chosen:
    """A profile with its model and weights, whether or not it fits this machine."""

    profile: Profile
    model: Model
    variant: Variant


def chosen(
    name: str | None, file: Path | None, places: Places, unfit: bool = False, engine: str | None = None
) -> Chosen:
    """The profile that is named, in a file, or else the best one for this machine, or for the model that is named.

    `unfit`: where none of a model's profiles fits, the one that comes closest. `engine`: as it runs there. Raises as
    `decide` does.
    """
    named = _named(Request(name, str(file) if file else None, None, None, Overrides(engine=engine)), places)
    if not isinstance(named, _Open):
        profile, model = named
        return Chosen(on_engine(profile, engine), model, model.variants[profile.variant])
    try:
        best = _best(named, Overrides(engine=engine), places, None)
    except MscliError:
        if not (unfit and named.ways):
            raise
        profile = named.ways.profiles[0]
        return Chosen(profile, *named.catalog.model_of(profile))
    return Chosen(best.profile, best.model, best.variant)


def plan_one(profile: Profile, model: Model, snapshot: Snapshot, overrides: Overrides) -> Plan | NoFit:
    """The plan of one profile, or why it does not fit and the nearest overrides that do."""
    return make(profile, model, snapshot, overrides)


def plan_all(
    profiles: Iterable[Profile], models: Mapping[str, Model], snapshot: Snapshot, overrides: Overrides
) -> Choice:
    """Every profile's verdict, best first, and the one that `mscli up` would take."""
    pairs = [(profile, models[profile.model]) for profile in profiles]
    return choose(pairs, snapshot, overrides)


def plan_ways(ways: Ways, models: Mapping[str, Model], snapshot: Snapshot, overrides: Overrides) -> Choice:
    """The best way to run the model that is meant, of a family the newest member that can be run here; `ranked` holds
    the verdicts on that model first."""
    choices = [
        plan_all([way for way in ways.profiles if way.model == name], models, snapshot, overrides)
        for name in ways.models
    ]
    place = next((place for place, choice in enumerate(choices) if choice.chosen), 0)
    taken, rest = choices[place], [*choices[:place], *choices[place + 1 :]]
    ranked = (*taken.ranked, *(verdict for choice in rest for verdict in choice.ranked))
    return replace(taken, reason=f"{_which(ways, models, place)}{taken.reason}", ranked=ranked)


def _which(ways: Ways, models: Mapping[str, Model], place: int) -> str:
    """Which member of a family it is, for one of several."""
    if len(ways.models) == 1:
        return ""
    newer = [models[name].title for name in ways.models[:place]]
    because = f"{', '.join(newer)} cannot be run here" if newer else f"the newest of '{ways.name}'"
    return f"{models[ways.models[place]].title}, {because}; "


def _best(
    wanted: _Open, overrides: Overrides, places: Places, replaced: str | None, installed_only: bool = False
) -> Decision:
    """The best profile for this machine. Raises NO_GPU or NO_FIT: never a silent run on the CPU."""
    catalog, ways = wanted.catalog, wanted.ways
    profiles = ways.profiles if ways else [each for each in catalog.profiles.values() if each.automatic]
    engines = [(profile.engine, profile.device) for profile in profiles]
    snapshot = see(places, engines, replaced, installed_only=installed_only)
    if not snapshot.inventory.devices:
        raise no_gpu(snapshot.inventory)
    if ways:
        choice = plan_ways(ways, catalog.models, snapshot, overrides)
    else:
        choice = plan_all(profiles, catalog.models, snapshot, overrides)
    if choice.chosen is None:
        raise _nothing_fits(choice, ways.name if ways else None, snapshot)
    profile = next(profile for profile in profiles if profile.name == choice.chosen.profile)
    model = catalog.models[profile.model]
    return Decision(profile, model, model.variants[choice.chosen.variant], choice.chosen, snapshot, choice)


def _named(request: Request, places: Places) -> tuple[Profile, Model] | _Open:
    """The profile that is asked for, or that it is left open. Raises PROFILE_UNKNOWN or PROFILE_INVALID."""
    if request.file is not None:
        catalog = catalogue(places)
        profile = load_profile_file(Path(request.file), catalog)
        return profile, catalog.models[profile.model]
    engine = request.overrides.engine
    if request.profile is None:
        return _Open(catalogue(places).for_engine(engine), None)
    try:
        return one(request.profile, places)
    except MscliError as unknown:
        if unknown.code is not Code.PROFILE_UNKNOWN:
            raise
        catalog = catalogue(places).for_engine(engine)
        if ways := catalog.ways(request.profile):
            return _Open(catalog, ways)
        raise


def no_gpu(inventory: Inventory) -> MscliError:
    """The error for a machine without a usable GPU: what was seen, and what can be done without one."""
    return MscliError(
        Code.NO_GPU,
        f"no usable NVIDIA GPU: {_seen(inventory)}",
        "To find out why: mscli doctor. mscli does not fall back to the CPU on its own. To try everything without a "
        "GPU: mscli up rehearsal. Profiles that run on the CPU: mscli profiles",
        {"seen": _seen(inventory), "cause": no_device_cause(inventory)},
    )


def _seen(inventory: Inventory) -> str:
    if inventory.nvml is not None:
        return inventory.nvml.message
    if not inventory.gpus:
        return "the driver works, but lists no GPU"
    if inventory.visible_devices is not None and all(not gpu.visible for gpu in inventory.gpus):
        return f"CUDA_VISIBLE_DEVICES={inventory.visible_devices!r} hides all {len(inventory.gpus)} of them"
    faults = {f"GPU {gpu.index}: {gpu.problems[0].message}" for gpu in inventory.gpus if gpu.problems}
    return "; ".join(sorted(faults)) or "no GPU can be used"


def _no_fit(profile: Profile, outcome: NoFit, inventory: Inventory) -> MscliError:
    if profile.device == "gpu" and not inventory.devices:
        return no_gpu(inventory)
    nearest = f"The nearest that works: {outcome.nearest}. " if outcome.nearest else ""
    update = _update(inventory) if outcome.cause == "driver_too_old" else ""
    return MscliError(
        Code.NO_FIT,
        f"{profile.name} does not fit this machine: {'; '.join(outcome.reasons)}",
        f"{update}{nearest}{_instead(profile, inventory)}All verdicts for this machine: mscli profiles",
        {"profile": profile.name, "reasons": list(outcome.reasons), "missing_bytes": outcome.missing_bytes,
         "cause": outcome.cause},
    )  # fmt: skip


def _update(inventory: Inventory) -> str:
    return f"Update the NVIDIA driver ({inventory.driver} is installed). "


def _instead(profile: Profile, inventory: Inventory) -> str:
    """The best shipped profile of the same model that fits its GPUs, as a command: on the same engine, else on any."""
    catalog = load_catalog(shipped_profiles(), None)
    alike = [it for it in catalog.profiles.values() if it.model == profile.model and it.device == "gpu"]
    others = [it for it in alike if it.name != profile.name and not it.offload]
    for candidates in ([it for it in others if it.engine == profile.engine], others):
        ranked = plan_all(candidates, catalog.models, imagine(inventory), Overrides()).ranked
        if found := next((outcome for outcome in ranked if isinstance(outcome, Plan)), None):
            title = catalog.profiles[found.profile].title
            return f"Another one that fits, with {found.context:,} tokens: mscli up {found.profile} ({title}). "
    return ""


def _nothing_fits(choice: Choice, asked: str | None, snapshot: Snapshot) -> MscliError:
    what = f"no profile for '{asked}'" if asked else "no profile"
    best = next((item for item in choice.ranked if isinstance(item, Plan)), None)
    engine = snapshot.engines.get((best.engine, "gpu" if best.devices else "cpu")) if best else None
    remedy = f"{engine.remedy} " if engine and engine.remedy else ""
    if choice.reason.startswith(DRIVER_TOO_OLD):
        remedy = _update(snapshot.inventory)
    if any(isinstance(item, NoFit) and item.cause == "gpu_busy" for item in choice.ranked):
        remedy += "What uses the GPUs: mscli gpus. "
    return MscliError(
        Code.NO_FIT,
        f"{what} fits this machine: {choice.reason}",
        f"{remedy}All verdicts: mscli profiles. To try everything without a GPU: mscli up rehearsal",
        {"reasons": {item.profile: list(item.reasons) for item in choice.ranked}},
    )
