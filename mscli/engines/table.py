"""Which engines can be started: the one table from an engine's name to its implementation, loaded when it is used."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from mscli.engines.engine import Engine
from mscli.errors import Code, MscliError

# name -> module and class; each engine's own imports cost milliseconds that the others' starts do not pay
_CLASSES = {
    "llama.cpp": ("mscli.engines.llamacpp.engine", "LlamaCpp"),
    "ollama": ("mscli.engines.ollama.engine", "Ollama"),
    "mistral.rs": ("mscli.engines.mistralrs.engine", "MistralRs"),
    "transformers": ("mscli.engines.transformers.engine", "Transformers"),
    "vllm": ("mscli.engines.vllm.engine", "Vllm"),
    "vllm-docker": ("mscli.engines.vllm.docker", "VllmDocker"),
}
STARTABLE = tuple(_CLASSES)


def engine(name: str) -> Engine:
    """The engine of this name. Raises ENGINE_UNSUPPORTED for one that is unknown."""
    if name in _CLASSES:
        module, kind = _CLASSES[name]
        return cast(Engine, getattr(import_module(module), kind)())
    raise MscliError(
        Code.ENGINE_UNSUPPORTED,
        f"There is no engine {name!r}",
        f"What it can start: {', '.join(STARTABLE)}. Profiles for it: mscli profiles",
        {"engine": name, "startable": list(STARTABLE)},
    )
