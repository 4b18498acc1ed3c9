"""Which engines are here, what they can do, and how mscli gets one."""

from __future__ import annotations

from dataclasses import dataclass

from mscli.catalog.profile import ENGINES
from mscli.engines.engine import Capabilities, Hosted, Imaged, Installation
from mscli.engines.table import INSTALLABLE, STARTABLE, engine, install
from mscli.errors import Code, MscliError
from mscli.weights.progress import Listener


@dataclass(frozen=True)
class EngineState:
    """One engine. `where` None: not here. `capabilities` None: this release plans for it, but does not start it.

    `kind`: program, wheel, environment, own, or adopted (a server that runs already). `note`: what is wrong, in words.
    `gpu`, `cpu`: whether this copy can run there, where it tells; `capabilities` are those of the engine.
    """

    name: str
    version: str | None
    where: str | None
    kind: str | None
    capabilities: Capabilities | None
    note: str | None
    gpu: bool | None = None
    cpu: bool | None = None


def engine_states() -> tuple[EngineState, ...]:
    """All engines of the catalogue. Waits for programs to tell their version."""
    return tuple(_state(name) for name in ENGINES)


def install_engine(wanted: str, listener: Listener) -> Installation:
    """Install `name` or `name==version` into mscli's own folder. Raises USAGE for one that mscli cannot install."""
    name, _, version = wanted.partition("==")
    if name not in INSTALLABLE:
        hint = _missing_hint(name)
        known = ", ".join(INSTALLABLE)
        raise MscliError(Code.USAGE, f"mscli installs {known}, not {name!r}", hint or "What is here: mscli engines")
    return install(name, listener, version or None)


def _missing_hint(name: str) -> str | None:
    if name not in STARTABLE:
        return None
    try:
        found = engine(name).locate()
    except MscliError as fault:
        return fault.hint
    return f"It is here already: {found.path}"


def _state(name: str) -> EngineState:
    if name not in STARTABLE:
        return EngineState(name, None, None, None, None, None)
    known = engine(name)
    if isinstance(known, Hosted) and (adopted := known.adopt()):
        where = f"http://{adopted.host}:{adopted.port} ({adopted.owner})"
        return EngineState(name, adopted.version, where, "adopted", known.capabilities, None)
    try:
        found = known.locate()
    except MscliError as fault:
        return EngineState(name, None, None, None, known.capabilities, f"{fault.message}. {fault.hint}")
    version, note = known.health(found) if isinstance(known, Imaged) else (found.version, None)
    return EngineState(name, version, str(found.path), found.kind, known.capabilities, note, found.gpu, found.cpu)
