"""Everything a plan is made from, seen once: this machine, our own instances, installed engines, earlier starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mscli.catalog.gpus import load_gpus
from mscli.engines.engine import Hosted
from mscli.engines.table import STARTABLE, engine
from mscli.errors import MscliError
from mscli.instances.json_values import load_lines
from mscli.instances.records import Records, claims
from mscli.inventory.detect import detect
from mscli.paths import Places, hub_cache, shipped_profiles
from mscli.planning.learned import Observation
from mscli.planning.verdict import Known


@dataclass(frozen=True)
class Snapshot(Known):
    """What was seen, as the planner takes it. `rivals`: marks of our own instances that were known at that moment."""

    rivals: tuple[str, ...] = ()


def see(
    places: Places, engines: Sequence[str], replaced: str | None = None, gpus: bool = True, adopt: bool = False
) -> Snapshot:
    """Look at this machine. `engines`: those whose installed version matters. `replaced`: the instance whose memory
    will come back first. `gpus` False: NVML is left alone, for what runs on the CPU. `adopt`: the version of a server
    that runs counts, where the engine has one. Reads /proc and files; waits for
    programs to tell their version."""
    known = Records(places).all()[0]
    return Snapshot(
        inventory=detect(hub_cache(), gpus=gpus),
        claims=claims(known, replaced),
        facts=load_gpus(shipped_profiles()),
        versions={name: found for name in sorted(set(engines)) if (found := installed(name, adopt))},
        observations=load_observations(places),
        rivals=tuple(record.mark for record in known),
    )


def load_observations(places: Places) -> tuple[Observation, ...]:
    """What earlier starts really took, in order of time, for the next plan to learn from."""
    return load_lines(places.observations, Observation)


def installed(name: str, adopt: bool = False) -> str | None:
    """The version of an engine as it would be used here; None where there is none, or it does not tell."""
    if name not in STARTABLE:
        return None
    known = engine(name)
    try:
        if isinstance(known, Hosted) and (adopted := known.adopt() or (known.running() if adopt else None)):
            return adopted.version
        return known.locate().version
    except MscliError:
        return None
