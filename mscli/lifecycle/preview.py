"""The exact command that a plan stands for, also where the engine or the weights are not here (yet)."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from mscli.catalog.model import Model, Variant
from mscli.catalog.profile import Profile
from mscli.engines.engine import Command, Engine, Hosted, Installation, Serving
from mscli.engines.table import engine as engine_named
from mscli.engines.table import located
from mscli.errors import MscliError
from mscli.frozen import frozen
from mscli.inventory.detect import detect
from mscli.lifecycle.launch import FIRST_PORT
from mscli.lifecycle.snapshot import offered
from mscli.paths import Places, hub_cache
from mscli.planning.plan import ENGINE_INSTALLABLE, ENGINE_MISSING, Plan
from mscli.weights.ensure import ensure
from mscli.weights.progress import Silence, WeightFiles

ABSENT = "absent"


@frozen
class Preview:
    """`command` None: this release cannot start that engine. `notes`: what of the command is not certain, and why.
    `installed`: the engine was found here."""

    command: Command | None
    notes: tuple[str, ...]
    installed: bool = True


def preview(plan: Plan, profile: Profile, model: Model, where: Serving, folder: str | None = None) -> Preview:
    """What would be executed to serve `plan` at `where`. Fetches, starts and writes nothing.

    `folder`: weights that were brought by disk, in place of the hub cache.

    An engine that is missing is named by its program, weights that are missing by repository and file.
    """
    notes: list[str] = []
    try:
        engine = engine_named(plan.engine)
        found = expected_engine(engine, notes, profile.device, plan.engine_state)
        weights = expected_weights(model, model.variants[plan.variant], notes, folder)
        command = engine.command(plan, profile, model, weights, where, found)
        return Preview(command, tuple(notes), found.kind != ABSENT)
    except MscliError as fault:
        return Preview(None, (*notes, fault.message))


def somewhere(profile: Profile, model: Model, places: Places) -> Serving:
    """Where an instance of `profile` would serve if its port is free; looks at nothing."""
    run_dir = places.instances / profile.name
    port = profile.port or FIRST_PORT
    return Serving(profile.name, profile.host, port, model.name, run_dir, run_dir / "log", None)


def expected_engine(engine: Engine, notes: list[str], device: str, state: str | None) -> Installation:
    """The engine's copy here, else one that is named by its program alone (of kind ABSENT)."""
    found = _located(engine.name, device)
    if isinstance(found, Installation):
        return found
    notes.append(_lacking(engine.name, device, state))
    return Installation(engine.name, (engine.program,), None, ABSENT, Path(engine.program))


@cache
def _lacking(name: str, device: str, state: str | None) -> str:
    """What `mscli up` installs first, or why it cannot; judged once, however many plans are shown."""
    why = _located(name, device)
    assert isinstance(why, MscliError)
    made = None
    if state in (ENGINE_INSTALLABLE, ENGINE_MISSING):
        try:
            made = offered(name, why, device, detect(hub_cache()))
        except MscliError as fault:
            why = fault
    if made is None or state == ENGINE_MISSING:
        return f"{why.message}. {why.hint}"
    fetched = f"about {made.download_bytes / 1e9:.1f} GB from {made.source}"
    return f"`mscli up` installs {made.what} first ({fetched}, into {made.folder}); it asks first, unless -y is given"


@cache
def _located(name: str, device: str) -> Installation | MscliError:
    """The engine's copy here, or why there is none; looked for once, however many plans are shown."""
    try:
        return located(engine_named(name), device)
    except MscliError as fault:
        return fault


def expected_weights(model: Model, variant: Variant, notes: list[str], folder: str | None = None) -> WeightFiles:
    """The weights as the engine would be given them: those that are here, else named by repository and file."""
    source = variant.source
    if source.kind == "ollama":
        server = engine_named("ollama")
        return (isinstance(server, Hosted) and server.stored(variant)) or WeightFiles(source.repository, None, 0)
    try:
        return ensure(model, variant, Silence(), offline=True, folder=Path(folder) if folder else None)
    except MscliError as fault:
        notes.append(fault.message)
    named = next((file for file in source.files if not file.endswith((".json", ".txt"))), "")
    whole = variant.format == "gguf"
    projector = f"{source.repository}/{source.projector}" if source.projector else None
    return WeightFiles(f"{source.repository}/{named}" if whole else source.repository, projector, 0)
