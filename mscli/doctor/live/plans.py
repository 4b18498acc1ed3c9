"""What the planner says of this machine, asked once for all checks."""

from __future__ import annotations

from mscli.catalog.gpus import load_gpus
from mscli.doctor.live.patience import within
from mscli.doctor.live.scene import Scene
from mscli.engines.engine import Adopted, Hosted, Installation
from mscli.engines.table import STARTABLE, engine
from mscli.errors import Code, MscliError
from mscli.lifecycle import observations
from mscli.lifecycle.decision import plan_all, plan_one
from mscli.lifecycle.running import claims, running
from mscli.lifecycle.sight import Sight
from mscli.paths import shipped_profiles
from mscli.planning.plan import NoFit, Plan, Wish

_LOCATE_S = 4.0


def sight(scene: Scene) -> Sight:
    """This machine as the planner is told of it. The memory of an instance of the profile asked about counts as coming
    back: it would be replaced."""
    return scene.once("sight", lambda: _sight(scene))


def _sight(scene: Scene) -> Sight:
    engine_name = scene.chosen.profile.engine if scene.chosen else None
    found = located(scene) if engine_name else None
    version = None if found is None or isinstance(found, MscliError) else found.version
    return Sight(
        inventory=scene.inventory,
        claims=claims(scene.records, own_instance(scene)),
        facts=load_gpus(shipped_profiles()),
        versions={engine_name: version} if engine_name and version else {},
        observations=observations.load(scene.places),
        rivals=(),
    )


def own_instance(scene: Scene) -> str | None:
    """The running instance of the profile asked about."""
    if scene.chosen is None:
        return None
    wanted = scene.chosen.profile.name
    return next((record.name for record in scene.records if record.plan.profile == wanted and running(record)), None)


def located(scene: Scene) -> Installation | Adopted | MscliError:
    """The engine of the profile asked about as `mscli up` would use it, or why there is none."""
    assert scene.chosen is not None
    name = scene.chosen.profile.engine
    return scene.once(f"located {name}", lambda: _located(name))


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


def plan(scene: Scene) -> Plan | NoFit:
    """The plan of the profile asked about, or why it does not fit."""
    assert scene.chosen is not None
    chosen = scene.chosen
    return scene.once("plan", lambda: plan_one(chosen.profile, chosen.model, sight(scene), Wish()))


def recommended(scene: Scene) -> Plan | None:
    """What `mscli up` would take here without a name, as far as memory and hardware go; None where nothing fits."""
    catalog = scene.catalog
    automatic = [profile for profile in catalog.profiles.values() if profile.automatic]
    return plan_all(automatic, catalog.models, sight(scene), Wish()).chosen


def startable(scene: Scene) -> bool:
    """Whether this release starts the engine of the profile asked about."""
    return scene.chosen is not None and scene.chosen.profile.engine in STARTABLE
