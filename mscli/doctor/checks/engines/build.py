"""What an engine's PyTorch was built for, held against this machine's GPUs, its driver and its compilers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from mscli.doctor.checks.check import Seen, fail, warn
from mscli.doctor.checks.context import CheckContext
from mscli.doctor.checks.engines.environment import Environment
from mscli.doctor.checks.engines.found import Found
from mscli.doctor.checks.program import which
from mscli.engines.vllm.pairs import broken
from mscli.planning.request import parse_version

Version = tuple[int, ...]
# By major compute capability, the first CUDA that makes code for it; code runs on later cards of the same major number.
_CUDA_FOR: Mapping[int, Version] = {8: (11, 0), 9: (11, 8), 10: (12, 8), 11: (13, 0), 12: (12, 8)}
# The first CUDA that no longer makes code for cards before Turing.
_DROPPED = ((13, 0), (7, 5))
# vLLM's kernels start with Volta.
_VLLM_LEAST = (7, 0)


def build_faults(ctx: CheckContext, found: Found, seen: Environment) -> Iterator[Seen]:
    """What does not go with the machine. Nothing on a machine without NVIDIA GPUs."""
    yield from _pairs(ctx, found)
    if not ctx.inventory.gpus or (ctx.chosen and ctx.chosen.profile.device == "cpu"):
        return
    if seen.torch is None or seen.torch.get("hip"):
        return
    if seen.cuda is None or "+cpu" in (found.version or ""):
        yield fail(
            "backend_no_gpu_build",
            f"{found.words}, with PyTorch {seen.torch['version']}, is built for CPUs only, and there are GPUs here",
            "Install its build with CUDA.",
            command=found.install,
        )
        return
    yield from _driver(ctx, found, seen.cuda)
    yield from _architectures(ctx, found, seen, seen.cuda)
    yield from _compilers(ctx, found, seen)


def _pairs(ctx: CheckContext, found: Found) -> Iterator[Seen]:
    model = ctx.chosen.model if ctx.chosen and ctx.chosen.profile.engine == found.engine else None
    if found.engine != "vllm" or found.place is None or not (pair := broken(found.place, model)):
        return
    status = fail if model else warn
    which_models = "" if model else f", with models from {pair.released} on"
    yield status(
        pair.package,
        f"{found.words} with {pair.package} {found.place.beside[pair.package]}{which_models}: {pair.what}",
        "Install the version that goes with it.",
        command=f"{found.python} -m pip install '{pair.pin}'",
    )


def _driver(ctx: CheckContext, found: Found, cuda: str) -> Iterator[Seen]:
    """Within one major release a driver runs what a newer CUDA has compiled, but compiles none of its PTX."""
    needs, has = parse_version(cuda), parse_version(ctx.inventory.cuda)
    if not needs or not has or has >= needs:
        return
    seen = f"{found.words} is built with CUDA {cuda}; driver {ctx.inventory.driver} knows {ctx.inventory.cuda}"
    remedy = f"Update the driver, or install a build for CUDA {ctx.inventory.cuda}."
    if has[0] < needs[0]:
        yield fail("driver_too_old", seen, remedy)
    elif found.engine == "vllm":
        yield fail("driver_too_old", f"{seen}: kernels that it brings as PTX do not compile", remedy)
    else:
        yield warn("driver_too_old", f"{seen}: what has to be compiled at a start does not", remedy)


def _architectures(ctx: CheckContext, found: Found, seen: Environment, cuda: str) -> Iterator[Seen]:
    listed = next((each.told for each in seen.imports if each.name == "torch" and each.told), None)
    for gpu in ctx.inventory.gpus:
        capability = parse_version(gpu.compute_capability)
        if not gpu.visible or not capability:
            continue
        if found.engine == "vllm" and capability < _VLLM_LEAST:
            yield fail(
                "compute_capability",
                f"GPU {gpu.index} ({gpu.name}, {gpu.compute_capability}) is too old for vLLM, which starts with 7.0",
                "Use llama.cpp or Ollama on it: `mscli plan`.",
            )
        elif why := _no_code(capability, cuda, listed):
            yield fail(
                "cuda_arch",
                f"{found.words}: its PyTorch ({why}) holds no code for GPU {gpu.index} ({gpu.name}, sm_"
                f"{gpu.compute_capability.replace('.', '') if gpu.compute_capability else ''})",
                "Install a build for it: Blackwell needs CUDA 12.8 or newer, cards before Turing one before CUDA 13.",
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
        return f"CUDA {cuda}, which does not know it yet"
    if built >= _DROPPED[0] and capability < _DROPPED[1]:
        return f"CUDA {cuda}, which does not know it any more"
    return None


def _capability(name: str) -> Version:
    """(9, 0) of sm_90, sm_90a and compute_90; (12, 0) of sm_120."""
    digits = "".join(letter for letter in name.partition("_")[2] if letter.isdigit())
    return int(digits[:-1] or 0), int(digits[-1:] or 0)


def _compilers(ctx: CheckContext, found: Found, seen: Environment) -> Iterator[Seen]:
    """What is compiled while vLLM starts: Triton's launcher always, FlashInfer's kernels where they come as source."""
    if found.engine != "vllm":
        return
    if "triton" in seen.versions and (not seen.compiler or not seen.headers):
        what = " and ".join(
            name for name, there in (("a C compiler", seen.compiler), ("Python.h", seen.headers)) if not there
        )
        yield warn(
            "python_env",
            f"{found.words}: Triton compiles a part of itself at the first start, and there is no {what}",
            "Install a compiler and Python's headers, or use a Python that brings them (`uv python install`).",
            command="sudo apt install build-essential python3-dev",
        )
    home = ctx.env.get("CUDA_HOME") or ctx.env.get("CUDA_PATH") or ""
    if home and not Path(home, "bin", "nvcc").is_file():
        yield warn(
            "nvcc_jit",
            f"CUDA_HOME={home}: there is no bin/nvcc in it, and what is compiled at a start looks nowhere else",
            "Let it name one folder, without colons, or unset it.",
            command="unset CUDA_HOME CUDA_PATH",
        )
    elif "flashinfer-python" in seen.versions and not _ready_made(seen):
        missing = [name for name, there in (("nvcc", home or which(ctx, "nvcc")), ("ninja", seen.ninja)) if not there]
        if missing and ctx.env.get("VLLM_USE_FLASHINFER_SAMPLER") != "0":
            yield warn(
                "nvcc_jit",
                f"{found.words}: FlashInfer {seen.versions['flashinfer-python']} compiles the kernels that are used, "
                f"and {' and '.join(missing)} cannot be found",
                "Install the CUDA toolkit and ninja, or flashinfer-jit-cache; or switch its sampler off.",
                command="export VLLM_USE_FLASHINFER_SAMPLER=0",
            )


def _ready_made(seen: Environment) -> bool:
    return "flashinfer-jit-cache" in seen.versions
