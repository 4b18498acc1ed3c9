"""The profile asked about on this machine: the plan for it, its engine, and which of its weights are here.

Looked at once, without asking anybody on the network.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mscli.catalog.gpus import load_gpus
from mscli.catalog.model import Variant
from mscli.doctor.checks.check import CheckContext, within
from mscli.engines.table import STARTABLE
from mscli.errors import Code, MscliError
from mscli.frozen import frozen
from mscli.instances.records import claims, running
from mscli.lifecycle.decision import plan_all, plan_one
from mscli.lifecycle.snapshot import Located, Snapshot, availability, load_observations
from mscli.lifecycle.snapshot import located as found_here
from mscli.paths import hub_cache, shipped_profiles
from mscli.planning.known import Availability
from mscli.planning.plan import NoFit, Overrides, Plan
from mscli.weights.cache import Cache, cache
from mscli.weights.from_hub import remembered
from mscli.weights.listing import WEIGHT_SUFFIXES, Listing, matching
from mscli.weights.local_folder import in_lm_studio, length_fault, unlisted


@frozen
class LocalWeights:
    """Weights of one variant. `where`: the folder that serves, or would. `whole`: all is there, with the right sizes.

    `missing_bytes`: what a pull would fetch. `listed`: the hub's list at this commit is known, so sizes were compared
    with it. `names`: the repository's names of what is known to be needed, or to be there. `fault`: why what is there
    is no use, and `cause` the code of that.
    """

    where: Path
    whole: bool
    missing_bytes: int
    listed: bool
    names: tuple[str, ...]
    fault: str | None = None
    cause: str = "corrupt_weights"


@frozen
class Damage:
    """A file in the cache that cannot serve."""

    path: Path
    what: str


def hub_place(ctx: CheckContext) -> Cache:
    """The hub cache of the visit's environment."""
    return cache(hub_cache(ctx.env))


def local_weights(ctx: CheckContext) -> LocalWeights | None:
    """What is here of the profile asked about; None where none was, or where its weights are not of the hub."""
    if ctx.chosen is None or ctx.chosen.variant.source.kind != "hub":
        return None
    variant = ctx.chosen.variant
    return ctx.once("holding", lambda: _readable(variant, hub_place(ctx)))


def needs_hub(ctx: CheckContext) -> bool:
    """Whether the profile asked about cannot start before something has been fetched from the hub."""
    found = local_weights(ctx)
    return found is not None and not found.whole


def _readable(variant: Variant, place: Cache) -> LocalWeights:
    try:
        return _find_weights(variant, place)
    except OSError as fault:
        seen = f"cannot read {fault.filename or place.root}: {fault.strerror}"
        return LocalWeights(place.root, False, variant.download_bytes, False, (), seen, "permissions")


def _find_weights(variant: Variant, place: Cache) -> LocalWeights:
    source = variant.source
    try:
        listing = remembered(variant, place)
    except MscliError as fault:  # the hub's list lacks a file that the variant names
        return LocalWeights(place.root, False, variant.download_bytes, True, (), fault.message)
    if listing is not None and listing.whole:
        names = tuple(file.remote.name for file in listing.files)
        return LocalWeights(place.snapshot(source.repository, listing.revision), True, 0, True, names)
    if copy := in_lm_studio(variant, listing):
        return LocalWeights(copy.folder, True, 0, listing is not None, copy.names)
    if listing is not None:
        return _part(listing, place)
    try:
        found = unlisted(variant, place, None)
    except MscliError as fault:
        return LocalWeights(place.root, False, variant.download_bytes, False, (), fault.message)
    if found is not None:
        return LocalWeights(found.folder, True, 0, False, found.names)
    return LocalWeights(place.root, False, variant.download_bytes, False, ())


def _part(listing: Listing, place: Cache) -> LocalWeights:
    names = tuple(file.remote.name for file in listing.files)
    where = place.snapshot(listing.repository, listing.revision)
    return LocalWeights(where, False, listing.missing_bytes, True, names)


def damage(place: Cache, repository: str, wanted: Variant | None = None) -> Iterator[Damage]:
    """The files of a repository in the cache that cannot serve, of every commit: links to nothing, files of another
    size than the hub stated, and, where that is not known, weights that are shorter than they say.

    `wanted`: only the files of this variant. Reads headers only where no size is known. Nothing for a repository that
    may not be looked into: that it cannot be written either is told by another check.
    """
    for folder in _snapshots(place, repository):
        sizes = {file.name: file.size_bytes for file in place.files(repository, folder.name) or ()}
        paths = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if not path.is_dir()}
        chosen = paths if wanted is None else {name: paths[name] for name in matching(paths, wanted)}
        for name, path in chosen.items():
            if what := _fault(path, sizes.get(name)):
                yield Damage(path, what)


def _snapshots(place: Cache, repository: str) -> list[Path]:
    try:
        return sorted(path for path in (place.repository(repository) / "snapshots").iterdir() if path.is_dir())
    except OSError:
        return []


def _fault(path: Path, size: int | None) -> str | None:
    try:
        if not path.exists():
            return f"broken link to {path.readlink()}"
        found = path.stat().st_size
        if size is not None and found != size:
            return length_fault(path) or f"{found:,} bytes, should be {size:,}"
        return length_fault(path) if size is None and path.name.endswith(WEIGHT_SUFFIXES) else None
    except OSError as error:
        return f"cannot be read ({error.strerror})"


_LOCATE_S = 4.0


def snapshot(ctx: CheckContext) -> Snapshot:
    """This machine as the planner is told of it. The memory of an instance of the profile asked about counts as coming
    back: it would be replaced."""
    return ctx.once("snapshot", lambda: _snapshot(ctx))


def _snapshot(ctx: CheckContext) -> Snapshot:
    engine_name = ctx.chosen.profile.engine if ctx.chosen else None
    found = located(ctx) if engine_name else None
    version = None if found is None or isinstance(found, MscliError) else found.version
    return Snapshot(
        inventory=ctx.inventory,
        claims=claims(ctx.records, own_instance(ctx)),
        facts=load_gpus(shipped_profiles()),
        versions={engine_name: version} if engine_name and version else {},
        observations=load_observations(ctx.places),
        rivals=(),
        engines=_engines(ctx, found),
    )


def _engines(ctx: CheckContext, found: Located | None) -> dict[tuple[str, str], Availability]:
    """Whether the engine of the profile asked about can be had here; nothing where that took too long to find out."""
    if ctx.chosen is None or found is None or (isinstance(found, MscliError) and found.details.get("late")):
        return {}
    profile = ctx.chosen.profile
    key = (profile.engine, profile.device)
    return {key: availability(profile.engine, found, profile.device, ctx.inventory)}


def own_instance(ctx: CheckContext) -> str | None:
    """The running instance of the profile asked about."""
    if ctx.chosen is None:
        return None
    wanted = ctx.chosen.profile.name
    return next((record.name for record in ctx.records if record.plan.profile == wanted and running(record)), None)


def located(ctx: CheckContext) -> Located:
    """The engine of the profile asked about as `mscli up` would use it, or why there is none."""
    assert ctx.chosen is not None
    profile = ctx.chosen.profile
    return ctx.once(f"located {profile.engine}", lambda: _located(ctx, profile.engine, profile.device))


def _located(ctx: CheckContext, name: str, device: str) -> Located:
    try:
        return within(_LOCATE_S, lambda: found_here(name, device, ctx.inventory))
    except TimeoutError:
        return MscliError(
            Code.ENGINE_MISSING, f"{name} did not report its version within {_LOCATE_S:g} s", details={"late": True}
        )


def plan(ctx: CheckContext) -> Plan | NoFit:
    """The plan of the profile asked about, or why it does not fit."""
    assert ctx.chosen is not None
    chosen = ctx.chosen
    return ctx.once("plan", lambda: plan_one(chosen.profile, chosen.model, snapshot(ctx), Overrides()))


def recommended(ctx: CheckContext) -> Plan | None:
    """What `mscli up` would take here without a name, as far as memory and hardware go; None where nothing fits."""
    catalog = ctx.catalog
    automatic = [profile for profile in catalog.profiles.values() if profile.automatic]
    return plan_all(automatic, catalog.models, snapshot(ctx), Overrides()).chosen


def startable(ctx: CheckContext) -> bool:
    """Whether this release starts the engine of the profile asked about."""
    return ctx.chosen is not None and ctx.chosen.profile.engine in STARTABLE
