"""What the planner says of this machine, asked once for all checks."""

from __future__ import annotations

from mscli.catalog.gpus import load_gpus
from mscli.doctor.checks.context import CheckContext
from mscli.doctor.checks.patience import within
from mscli.engines.engine import Adopted, Hosted, Installation
from mscli.engines.table import STARTABLE, engine
from mscli.errors import Code, MscliError
from mscli.instances.records import claims, running
from mscli.lifecycle.decision import plan_all, plan_one
from mscli.lifecycle.snapshot import Snapshot, load_observations
from mscli.paths import shipped_profiles
from mscli.planning.plan import NoFit, Overrides, Plan

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
    )


def own_instance(ctx: CheckContext) -> str | None:
    """The running instance of the profile asked about."""
    if ctx.chosen is None:
        return None
    wanted = ctx.chosen.profile.name
    return next((record.name for record in ctx.records if record.plan.profile == wanted and running(record)), None)


def located(ctx: CheckContext) -> Installation | Adopted | MscliError:
    """The engine of the profile asked about as `mscli up` would use it, or why there is none."""
    assert ctx.chosen is not None
    name = ctx.chosen.profile.engine
    return ctx.once(f"located {name}", lambda: _located(name))


def _located(name: str) -> Installation | Adopted | MscliError:
    try:
        return within(_LOCATE_S, lambda: _found(name))
    except MscliError as fault:
        return fault
    except TimeoutError:
        return MscliError(
            Code.ENGINE_MISSING, f"{name} does not tell its version within {_LOCATE_S:g} s", details={"late": True}
        )


def _found(name: str) -> Installation | Adopted:
    known = engine(name)
    if isinstance(known, Hosted) and (adopted := known.adopt()):
        return adopted
    return known.locate()


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
