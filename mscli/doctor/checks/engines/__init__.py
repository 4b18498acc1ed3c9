"""Checks of the engines: each located as a start would, run or imported, and held against this machine.

And the variables of this shell that change what an engine does, mostly left over from something else.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from mscli.doctor.checks import ollama_server
from mscli.doctor.checks.check import Check, Finding, fail, ok, warn
from mscli.doctor.checks.container_engine import container_engine
from mscli.doctor.checks.context import CheckContext
from mscli.doctor.checks.engines.installed import Environment, located
from mscli.doctor.checks.engines.llamacpp import llamacpp, server
from mscli.doctor.checks.engines.python import TRANSFORMERS, VLLM, Kind, environment, judged
from mscli.engines.mistralrs.installation import NAME as MISTRALRS
from mscli.engines.mistralrs.installation import WHEEL
from mscli.frozen import frozen

# The distribution of mistral.rs that has GPU code.
_WITH_CUDA = "mistralrs-cuda"
_PROGRAMS = {"llama-server": "llama.cpp/llama-server", "ollama": "ollama/bin/ollama", "vllm": "vllm/bin/vllm"}


def _mistralrs(ctx: CheckContext) -> Iterator[Finding]:
    found = located(ctx, MISTRALRS)
    if found.place is None:
        yield found.absent(ctx)
        return
    if found.place.kind == WHEEL and ctx.inventory.gpus and _WITH_CUDA not in found.place.beside:
        severity = fail if ctx.wants(MISTRALRS) else warn
        yield severity(
            "backend_no_gpu_build",
            f"{found.words} is a CPU wheel, but this machine has GPUs",
            "Install the build with CUDA:",
            command="cargo install mistralrs-cli --features cuda",
        )
        return
    yield ok(found.words)


def _shadows(ctx: CheckContext) -> Iterator[Finding]:
    """Programs of one name: the first on PATH is used, before the one that mscli installed."""
    twins = False
    for name, own in _PROGRAMS.items():
        places = _on_path(ctx, name)
        installed = ctx.places.engines / own
        if installed.is_file() and places:
            twins = True
            yield warn(None, f"{places[0]} on PATH hides {installed}, which mscli installed", "Remove one of the two.")
        elif len(places) > 1:
            twins = True
            yield warn(
                None, f"{len(places)} programs named {name} on PATH; {places[0]} is used",
                "Put the one you want first.", *map(str, places),
            )  # fmt: skip
    if not twins:
        yield ok("no conflicting engine binaries on PATH")


def _on_path(ctx: CheckContext, name: str) -> list[Path]:
    """Every program of this name, those that are one file only once."""
    found: dict[Path, Path] = {}
    for folder in ctx.env.get("PATH", "").split(":"):
        path = Path(folder or ".", name)
        if path.is_file():
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _usable(ctx: CheckContext) -> Iterator[Finding]:
    """Whether anything here can run a model on this machine's GPUs, or else on its CPU."""
    gpus = bool(ctx.inventory.devices)
    here = [name for name, fits in _abilities(ctx, gpus) if fits]
    if here:
        yield ok(f"usable on this machine's {'GPUs' if gpus else 'CPU'}: {', '.join(here)}")
        return
    name = "ollama" if gpus else "llama.cpp"
    yield warn(
        "engine_missing",
        f"no engine for this machine's {'GPUs' if gpus else 'CPU'}",
        "Install one into mscli's folder, without root (others: mscli engines):",
        command=f"mscli engines install {name}",
    )


def _abilities(ctx: CheckContext, gpus: bool) -> Iterator[tuple[str, bool]]:
    """Every engine, and whether it is here and fits."""
    yield "ollama", ollama_server.ollama(ctx).server is not None or ollama_server.program(ctx) is not None
    ours = server(ctx)
    yield "llama.cpp", ours is not None and not ours.broken and (not gpus or bool(ours.devices))
    yield "vllm", _in_python(ctx, VLLM, gpus)
    yield "transformers", _in_python(ctx, TRANSFORMERS, gpus)
    docker = container_engine(ctx)
    yield "vllm-docker", gpus and docker is not None and bool("nvidia" in docker.engine.runtimes or docker.engine.cdi)
    rust = located(ctx, MISTRALRS).place
    yield MISTRALRS, rust is not None and (not gpus or rust.kind != WHEEL or _WITH_CUDA in rust.beside)


def _in_python(ctx: CheckContext, kind: Kind, gpus: bool) -> bool:
    found = located(ctx, kind.name)
    if found.place is None or found.python is None:
        return found.place is not None
    seen = environment(ctx, kind, found)
    return isinstance(seen, Environment) and (not gpus or seen.cuda is not None)


_OFF = frozenset({"", "0", "false", "no", "off"})
_SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSWORD", re.IGNORECASE)
_PASSWORD = re.compile(r"//[^/@\s]*@")


@frozen
class Override:
    """Variables by pattern, and what they do. `when`: values that matter (a pattern); `switch`: only when it is on."""

    name: str
    does: str
    code: str | None = None
    when: str = ""
    switch: bool = False


def overrides() -> tuple[Override, ...]:
    """The table of variables.csv. Of two that match a name the first one counts; one that does nothing is harmless."""
    with Path(__file__).with_name("variables.csv").open(newline="") as file:
        return tuple(
            Override(row["name"], row["does"], row["code"] or None, row["when"], row["switch"] == "yes")
            for row in csv.DictReader(file)
        )


def variables(ctx: CheckContext) -> Iterator[Finding]:
    """What is set in this shell, or by the profile, and what it does."""
    found, table = False, overrides()
    meant = ctx.chosen.profile.env if ctx.chosen else {}
    for name, value in sorted((name, value) for name, value in ctx.env.items() if name not in meant):
        override = next((each for each in table if re.fullmatch(each.name, name)), None)
        if override and override.does and _matters(override, value):
            found = True
            yield warn(
                override.code,
                f"{name}={_shown(name, value)}: {override.does}",
                "If not intended:",
                command=f"unset {name}",
            )
    if not found:
        yield ok("no environment overrides for engines")


def _matters(override: Override, value: str) -> bool:
    if override.switch:
        return value.lower() not in _OFF
    return not override.when or re.search(override.when, value) is not None


def _shown(name: str, value: str) -> str:
    return "..." if _SECRET.search(name) else _PASSWORD.sub("//***@", value)


CHECKS = (
    Check("engines.usable", _usable, thorough_s=100.0),
    Check("engines.llama.cpp", llamacpp, thorough_s=45.0),
    Check("engines.vllm", partial(judged, kind=VLLM), thorough_s=100.0),
    Check("engines.transformers", partial(judged, kind=TRANSFORMERS), thorough_s=100.0),
    Check("engines.mistral.rs", _mistralrs, thorough_s=15.0),
    Check("engines.programs", _shadows),
    Check("engines.variables", variables),
)
