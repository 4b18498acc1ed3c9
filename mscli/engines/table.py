"""Which engines can be started: the one table from an engine's name to its implementation, loaded when it is used.

Every engine is a folder here, with the same names for the same jobs: `engine.py` its class, `installation.py` where a
usable copy is and how to get one (`locate`, `install`), `flags.py` its command line where that fills a file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import cast

from mscli.engines.engine import Engine, Installation
from mscli.errors import Code, MscliError
from mscli.weights.progress import Listener


@dataclass(frozen=True)
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


def install(name: str, listener: Listener, version: str | None) -> Installation:
    """Install the engine into mscli's own folder, in place of what is there; blocks for the download.

    `version` None: the one that mscli was tested with. Raises KeyError for one that is not INSTALLABLE, and what the
    engine's own `install` raises.
    """
    run: Callable[..., Installation] = import_module(f"mscli.engines.{_ENGINES[name].installer}").install
    return run(listener, version=version) if version else run(listener)
