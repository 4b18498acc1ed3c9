"""Which engines can be started: the one table from an engine's name to its implementation."""

from __future__ import annotations

from collections.abc import Mapping

from mscli.catalog.profile import ENGINES
from mscli.engines.engine import Engine
from mscli.engines.llamacpp import LlamaCpp
from mscli.engines.ollama import Ollama
from mscli.errors import Code, MscliError

STARTABLE: Mapping[str, Engine] = {engine.name: engine for engine in (LlamaCpp(), Ollama())}


def engine(name: str) -> Engine:
    """The engine of this name. Raises ENGINE_UNSUPPORTED for one that can be planned but not started, or is unknown."""
    if name in STARTABLE:
        return STARTABLE[name]
    startable = ", ".join(STARTABLE)
    if name in ENGINES:
        message = f"This release of mscli plans deployments on {name}, but does not start that engine yet"
    else:
        message = f"There is no engine {name!r}"
    raise MscliError(
        Code.ENGINE_UNSUPPORTED,
        message,
        f"What it can start: {startable}. Profiles for it: mscli profiles",
        {"engine": name, "startable": list(STARTABLE)},
    )
