"""Checks of the engines: each located as a start would, run or imported, and held against this machine.

And the variables of this shell that change what an engine does, mostly left over from something else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mscli.doctor.checks import ollama_server
from mscli.doctor.checks.check import Check, Finding, fail, ok, warn
from mscli.doctor.checks.container_engine import container_engine
from mscli.doctor.checks.context import CheckContext
from mscli.doctor.checks.engines.installed import Environment, located, wanted
from mscli.doctor.checks.engines.llamacpp import llamacpp, server
from mscli.doctor.checks.engines.python import TRANSFORMERS, VLLM, Kind, environment, judged
from mscli.engines.mistralrs.installation import NAME as MISTRALRS
from mscli.engines.mistralrs.installation import WHEEL

# The distribution of mistral.rs that has GPU code.
_WITH_CUDA = "mistralrs-cuda"
_PROGRAMS = {"llama-server": "llama.cpp/llama-server", "ollama": "ollama/bin/ollama", "vllm": "vllm/bin/vllm"}


def _vllm(ctx: CheckContext) -> Iterator[Finding]:
    yield from judged(ctx, VLLM)


def _transformers(ctx: CheckContext) -> Iterator[Finding]:
    yield from judged(ctx, TRANSFORMERS)


def _mistralrs(ctx: CheckContext) -> Iterator[Finding]:
    found = located(ctx, MISTRALRS)
    if found.place is None:
        yield found.absent(ctx)
        return
    if found.place.kind == WHEEL and ctx.inventory.gpus and _WITH_CUDA not in found.place.beside:
        severity = fail if wanted(ctx, MISTRALRS) else warn
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
            yield warn(
                None,
                f"{places[0]} on PATH hides {installed}, which mscli installed",
                "Remove one of the two.",
            )
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


@dataclass(frozen=True)
class Override:
    """Variables by pattern, and what they do. `when`: values that matter (a pattern); `switch`: only when it is on."""

    name: str
    does: str
    code: str | None = None
    when: str = ""
    switch: bool = False


# The first of a name counts.
OVERRIDES = (
    Override(
        "VLLM_WORKER_MULTIPROC_METHOD",
        "vLLM forks its workers (fails once CUDA is in use)",
        "fork_spawn",
        when=r"^fork$",
    ),
    Override("VLLM_USE_V1", "selects vLLM's V0 core, removed in newer versions", "cli_flags", when=r"^0$"),
    Override(
        "VLLM_ATTENTION_BACKEND", "forces an attention backend, even where the GPU does not support it", "cli_flags"
    ),
    Override(
        "VLLM_USE_MODELSCOPE", "vLLM downloads from ModelScope instead of Hugging Face", "model_not_found", switch=True
    ),
    Override("VLLM_TARGET_DEVICE", "sets vLLM's device", "backend_no_gpu_build", when=r"^(?!cuda)."),
    Override("VLLM_HOST_IP", "sets the address that vLLM's workers use", "nccl"),
    Override("VLLM_PORT", "sets the first of vLLM's internal ports, which may be in use", "port"),
    Override("VLLM_PLUGINS", "vLLM loads only these plugins"),
    Override("VLLM_CONFIGURE_LOGGING", "turns off vLLM's log, which mscli needs to follow a start", when=r"^0$"),
    Override(
        "VLLM_LOGGING_LEVEL",
        "hides the log lines that mscli needs to follow a start",
        when="(?i)^(warn|err|crit)",
    ),
    Override("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "allows a context longer than the model supports", switch=True),
    Override(
        "VLLM_SKIP_P2P_CHECK", "skips vLLM's peer-to-peer check (hangs where it does not work)", "p2p", switch=True
    ),
    Override("VLLM_FLASH_ATTN_VERSION", "forces a FlashAttention version, even where the GPU does not support it"),
    # Places, counters and keys: they change nothing that mscli counts on.
    Override(r"VLLM_(?:CACHE_ROOT|CONFIG_ROOT|ASSETS_CACHE|NO_USAGE_STATS|DO_NOT_TRACK|API_KEY)", ""),
    Override("VLLM_USE_FLASHINFER_SAMPLER", "uses FlashInfer's sampler, compiled at startup", "nvcc_jit", switch=True),
    Override(r"VLLM_\w+", "vLLM setting, also applied to what mscli starts"),
    Override("HF_HUB_OFFLINE", "no downloads from Hugging Face", "offline", switch=True),
    Override("TRANSFORMERS_OFFLINE", "no downloads from Hugging Face", "offline", switch=True),
    Override(
        "HF_ENDPOINT",
        "downloads from this address instead of huggingface.co",
        "network_proxy",
        when=r"^(?!https://huggingface\.co/?$).",
    ),
    Override("TRANSFORMERS_CACHE", "ignored by newer versions: use HF_HOME", "model_not_found"),
    Override("PYTORCH_PRETRAINED_BERT_CACHE|PYTORCH_TRANSFORMERS_CACHE", "no longer read: use HF_HOME"),
    Override("HF_HUB_ENABLE_HF_TRANSFER", "needs package hf_transfer; ignored by newer versions", switch=True),
    Override(
        "BNB_CUDA_VERSION", "bitsandbytes uses its library for this CUDA version, whatever PyTorch uses", "bitsandbytes"
    ),
    Override("PYTHONPATH", "its packages override those of every engine's environment", "python_env"),
    Override("PYTHONHOME", "sets the standard library of every Python", "python_env"),
    Override("LD_PRELOAD", "loaded into every engine", None),
    Override("TORCH_CUDA_ARCH_LIST", "compiles kernels only for these GPUs", "cuda_arch"),
    Override("CUDA_LAUNCH_BLOCKING", "waits for every kernel (much slower)", switch=True),
    Override(
        "GGML_CUDA_ENABLE_UNIFIED_MEMORY",
        "llama.cpp silently uses host memory when the GPU is full",
        "cpu_fallback",
        switch=True,
    ),
    Override(r"LLAMA_ARG_\w+", "sets a llama-server flag behind mscli's back", "cli_flags"),
    Override("OMP_NUM_THREADS", "CPU computation uses one core", None, when=r"^1$"),
)


def variables(ctx: CheckContext) -> Iterator[Finding]:
    """What is set in this shell, or by the profile, and what it does."""
    found = False
    for name, value in sorted(_set(ctx).items()):
        override = next((each for each in OVERRIDES if re.fullmatch(each.name, name)), None)
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


def _set(ctx: CheckContext) -> dict[str, str]:
    """The shell's variables with those of the profile over them, which are meant."""
    meant = ctx.chosen.profile.env if ctx.chosen else {}
    return {name: value for name, value in ctx.env.items() if name not in meant}


def _matters(override: Override, value: str) -> bool:
    if override.switch:
        return value.lower() not in _OFF
    return not override.when or re.search(override.when, value) is not None


def _shown(name: str, value: str) -> str:
    return "..." if _SECRET.search(name) else _PASSWORD.sub("//***@", value)


CHECKS = (
    Check("engines.usable", _usable, thorough_s=100.0),
    Check("engines.llama.cpp", llamacpp, thorough_s=45.0),
    Check("engines.vllm", _vllm, thorough_s=100.0),
    Check("engines.transformers", _transformers, thorough_s=100.0),
    Check("engines.mistral.rs", _mistralrs, thorough_s=15.0),
    Check("engines.programs", _shadows),
    Check("engines.variables", variables),
)
