"""Which engines can be started, which of them are here, and how mscli gets one: the one table from an engine's name to
its implementation, loaded when it is used.

Every engine is a folder here, with the same names for the same jobs: `engine.py` its class, `installation.py` where a
usable copy is and how to get one (`locate`, `install`), `flags.py` its command line where that fills a file.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import cast

from mscli.catalog.profile import ENGINES
from mscli.engines.engine import Capabilities, Engine, Hosted, Imaged, Installation, Offer, Selective
from mscli.errors import Code, MscliError
from mscli.frozen import frozen
from mscli.inventory.inventory import Inventory
from mscli.weights.progress import Listener


@frozen
class _Row:
    """`module`, `kind`: the class below mscli.engines. `installer`: the module whose `install` puts the engine into
    mscli's own folder; None: mscli does not install it."""

    module: str
    kind: str
    installer: str | None


# Each engine's own imports cost milliseconds that the others' starts do not pay: so by name.
_ENGINES = {
    "llama.cpp": _Row("llamacpp.engine", "LlamaCpp", "llamacpp.installation"),
    "ollama": _Row("ollama.engine", "Ollama", "ollama.installation"),
    "mistral.rs": _Row("mistralrs.engine", "MistralRs", "mistralrs.installation"),
    "transformers": _Row("transformers.engine", "Transformers", "transformers.installation"),
    "vllm": _Row("vllm.engine", "Vllm", "vllm.installation"),
    "vllm-docker": _Row("vllm.docker", "VllmDocker", None),
}
STARTABLE = tuple(_ENGINES)
INSTALLABLE = tuple(sorted(name for name, row in _ENGINES.items() if row.installer))


def engine(name: str) -> Engine:
    """The engine of this name. Raises ENGINE_UNSUPPORTED for one that is unknown."""
    if row := _ENGINES.get(name):
        return cast(Engine, getattr(import_module(f"mscli.engines.{row.module}"), row.kind)())
    raise MscliError(
        Code.ENGINE_UNSUPPORTED,
        f"There is no engine {name!r}",
        f"What it can start: {', '.join(STARTABLE)}. Profiles for it: mscli profiles",
        {"engine": name, "startable": list(STARTABLE)},
    )


def located(known: Engine, device: str) -> Installation:
    """The copy of an engine that is used for a profile on `device` (gpu or cpu). Raises ENGINE_MISSING."""
    return known.locate_for(device) if isinstance(known, Selective) else known.locate()


@frozen
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
    """Install `name` or `name==version` into mscli's own folder, in place of what is there; blocks for the download.

    Without a version it is the one that mscli was tested with. Raises USAGE for an engine that mscli cannot install,
    and what the engine's own `install` raises.
    """
    name, _, version = wanted.partition("==")
    if name not in INSTALLABLE:
        hint = _missing_hint(name)
        known = ", ".join(INSTALLABLE)
        raise MscliError(Code.USAGE, f"mscli installs {known}, not {name!r}", hint or "To list engines: mscli engines")
    run: Callable[..., Installation] = import_module(f"mscli.engines.{_ENGINES[name].installer}").install
    return run(listener, version=version) if version else run(listener)


def offer(name: str, device: str, inventory: Inventory) -> Offer:
    """What `install_engine` would put here for a profile on `device` (gpu or cpu).

    Fetches nothing. Raises USAGE for an engine that mscli does not install, ENGINE_UNSUPPORTED or ENGINE_MISSING where
    it could not run here.
    """
    if name not in INSTALLABLE:
        raise MscliError(Code.USAGE, f"mscli does not install {name}", "To list engines: mscli engines")
    told: Callable[..., Offer] = import_module(f"mscli.engines.{_ENGINES[name].installer}").offer
    return told(device, inventory)


def _missing_hint(name: str) -> str | None:
    if name not in STARTABLE:
        return None
    try:
        found = engine(name).locate()
    except MscliError as fault:
        return fault.hint
    return f"Already installed: {found.path}"


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
