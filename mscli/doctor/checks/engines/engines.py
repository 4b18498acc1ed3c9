"""Checks of the engines: each located as a start would, run or imported, and held against this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mscli.doctor.checks.check import Check, Seen, fail, ok, warn
from mscli.doctor.checks.containers import view as containers_view
from mscli.doctor.checks.context import CheckContext
from mscli.doctor.checks.engines.environment import Environment
from mscli.doctor.checks.engines.found import located, wanted
from mscli.doctor.checks.engines.llamacpp import llamacpp, server
from mscli.doctor.checks.engines.python import TRANSFORMERS, VLLM, Kind, environment, judged
from mscli.doctor.checks.engines.variables import variables
from mscli.doctor.checks.ollama import view as ollama_view
from mscli.engines.mistralrs.installation import NAME as MISTRALRS
from mscli.engines.mistralrs.installation import WHEEL

# The distribution of mistral.rs that has GPU code.
_WITH_CUDA = "mistralrs-cuda"
_PROGRAMS = {"llama-server": "llama.cpp/llama-server", "ollama": "ollama/bin/ollama", "vllm": "vllm/bin/vllm"}


def _vllm(ctx: CheckContext) -> Iterator[Seen]:
    yield from judged(ctx, VLLM)


def _transformers(ctx: CheckContext) -> Iterator[Seen]:
    yield from judged(ctx, TRANSFORMERS)


def _mistralrs(ctx: CheckContext) -> Iterator[Seen]:
    found = located(ctx, MISTRALRS)
    if found.place is None:
        yield found.absent(ctx)
        return
    if found.place.kind == WHEEL and ctx.inventory.gpus and _WITH_CUDA not in found.place.beside:
        status = fail if wanted(ctx, MISTRALRS) else warn
        yield status(
            "backend_no_gpu_build",
            f"{found.words} is a wheel for CPUs, and there are GPUs here",
            "Install its program with GPU code: https://ericlbuehler.github.io/mistral.rs",
            command="cargo install mistralrs-cli --features cuda",
        )
        return
    yield ok(f"{found.words} is here")


def _shadows(ctx: CheckContext) -> Iterator[Seen]:
    """Programs of one name: the first on PATH is used, before the one that mscli installed."""
    twins = False
    for name, own in _PROGRAMS.items():
        places = _on_path(ctx, name)
        installed = ctx.places.engines / own
        if installed.is_file() and places:
            twins = True
            yield warn(
                None,
                f"{places[0]} is on PATH, so that {installed}, which mscli installed, is not used",
                "Take the one off PATH, or remove the other.",
            )
        elif len(places) > 1:
            twins = True
            yield warn(
                None, f"there are {len(places)} programs called {name} on PATH; {places[0]} is used",
                "Keep the one that is meant first.", *map(str, places),
            )  # fmt: skip
    if not twins:
        yield ok("no engine's program hides another")


def _on_path(ctx: CheckContext, name: str) -> list[Path]:
    """Every program of this name, those that are one file only once."""
    found: dict[Path, Path] = {}
    for folder in ctx.env.get("PATH", "").split(":"):
        path = Path(folder or ".", name)
        if path.is_file():
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _usable(ctx: CheckContext) -> Iterator[Seen]:
    """Whether anything here can run a model on this machine's GPUs, or else on its CPU."""
    gpus = bool(ctx.inventory.devices)
    here = [name for name, fits in _abilities(ctx, gpus) if fits]
    if here:
        yield ok(f"engines that can be used on this machine's {'GPUs' if gpus else 'CPU'}: {', '.join(here)}")
        return
    name = "ollama" if gpus else "llama.cpp"
    yield warn(
        "engine_missing",
        f"there is no engine here that can use this machine's {'GPUs' if gpus else 'CPU'}",
        "mscli installs one into its own folder, without root; others: mscli engines",
        command=f"mscli engines install {name}",
    )


def _abilities(ctx: CheckContext, gpus: bool) -> Iterator[tuple[str, bool]]:
    """Every engine, and whether it is here and fits."""
    yield "ollama", ollama_view.view(ctx).server is not None or ollama_view.program(ctx) is not None
    ours = server(ctx)
    yield "llama.cpp", ours is not None and not ours.broken and (not gpus or bool(ours.devices))
    yield "vllm", _in_python(ctx, VLLM, gpus)
    yield "transformers", _in_python(ctx, TRANSFORMERS, gpus)
    docker = containers_view.client(ctx)
    yield "vllm-docker", gpus and docker is not None and bool("nvidia" in docker.engine.runtimes or docker.engine.cdi)
    rust = located(ctx, MISTRALRS).place
    yield MISTRALRS, rust is not None and (not gpus or rust.kind != WHEEL or _WITH_CUDA in rust.beside)


def _in_python(ctx: CheckContext, kind: Kind, gpus: bool) -> bool:
    found = located(ctx, kind.name)
    if found.place is None or found.python is None:
        return found.place is not None
    seen = environment(ctx, kind, found)
    return isinstance(seen, Environment) and (not gpus or seen.cuda is not None)


CHECKS = (
    Check("engines.usable", _usable, thorough_s=100.0),
    Check("engines.llama.cpp", llamacpp, thorough_s=45.0),
    Check("engines.vllm", _vllm, thorough_s=100.0),
    Check("engines.transformers", _transformers, thorough_s=100.0),
    Check("engines.mistral.rs", _mistralrs, thorough_s=15.0),
    Check("engines.programs", _shadows),
    Check("engines.variables", variables),
)
