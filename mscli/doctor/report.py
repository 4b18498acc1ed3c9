"""`mscli doctor --report`: all that a helper would ask for, as one Markdown text without anything private."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

from mscli import __version__
from mscli.doctor.live.check import CRASHED, FAIL, OK, WARN, Finding
from mscli.doctor.live.scene import Scene
from mscli.doctor.markdown import fenced, size, table
from mscli.doctor.private import private_here
from mscli.doctor.redact import redacted
from mscli.doctor.report_runs import Subject, instances, log, plans
from mscli.inventory.inventory import Gpu, Holder, Inventory
from mscli.lifecycle.engine_state import engine_states

TITLE = "# mscli doctor report"
_PACKAGES = ("huggingface-hub", "httpx", "ollama", "nvidia-ml-py", "typer", "xllamacpp")
_TROUBLE = (FAIL, WARN, CRASHED)
# Variables that bear on engines and downloads, by how their names begin; of most only that they are set is told.
_TELLING = (
    *("CUDA_", "NVIDIA_", "NCCL_", "VLLM_", "OLLAMA_", "LLAMA_", "GGML_", "HF_", "HUGGINGFACE_", "TRANSFORMERS_"),
    *("TORCH_", "PYTORCH_", "TRITON_", "XFORMERS_", "FLASHINFER_", "MSCLI_", "OMP_", "MKL_", "LD_", "WSL_", "DOCKER_"),
)
_TELLING_NAMES = frozenset(
    (
        *("PATH", "PYTHONPATH", "VIRTUAL_ENV", "CONDA_PREFIX", "TMPDIR", "LANG", "LC_ALL", "XDG_CACHE_HOME"),
        *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy"),
        *("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    )
)
# Settings whose values cannot be secrets; they pass the same redaction as everything else.
_VALUES_SHOWN = frozenset(
    (
        *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_HOME", "CUDA_LAUNCH_BLOCKING", "NVIDIA_VISIBLE_DEVICES"),
        *("NVIDIA_DRIVER_CAPABILITIES", "NCCL_DEBUG", "NCCL_P2P_DISABLE", "NCCL_IB_DISABLE", "NCCL_SOCKET_IFNAME"),
        *("VLLM_USE_V1", "VLLM_ATTENTION_BACKEND", "VLLM_LOGGING_LEVEL", "VLLM_WORKER_MULTIPROCESSING_METHOD"),
        *("OLLAMA_HOST", "OLLAMA_MODELS", "OLLAMA_CONTEXT_LENGTH", "OLLAMA_KV_CACHE_TYPE", "OLLAMA_FLASH_ATTENTION"),
        *("OLLAMA_NUM_PARALLEL", "OLLAMA_KEEP_ALIVE", "OLLAMA_MAX_LOADED_MODELS", "HF_HOME", "HF_HUB_CACHE"),
        *("HF_HUB_OFFLINE", "HF_ENDPOINT", "PYTORCH_CUDA_ALLOC_CONF", "MSCLI_HOME", "MSCLI_VLLM", "OMP_NUM_THREADS"),
        *("LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH", "VIRTUAL_ENV", "CONDA_PREFIX", "TMPDIR", "LANG", "LC_ALL"),
    )
)


def report(scene: Scene, findings: Sequence[Finding], subject: Subject) -> str:
    """The whole report. Reads files, asks engines for their versions and instances for their state (2 s each at most).

    `subject`: the profile and log that it is about. Everything in it has passed `redacted`.
    """
    sections = (
        _head(),
        ("## Machine", *_machine(scene.inventory), *_gpus(scene.inventory)),
        ("## Engines", *_engines()),
        ("## Findings", *_findings(findings)),
        ("## Plan", *plans(scene, subject)),
        ("## Instances", *instances(scene)),
        ("## Environment", *_environment(scene.env)),
        ("## Log", *log(scene, subject)),
    )
    text = "\n\n".join("\n".join(section) for section in sections) + "\n"
    return redacted(text, private_here(scene.places, scene.env, scene.root))


def _head() -> tuple[str, ...]:
    return (
        TITLE,
        "",
        "Secrets, names, addresses and prompts were removed by mscli. Read it once before you pass it on all the same.",
        "",
        f"- made: {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime())}",
        f"- mscli {__version__}, Python {platform.python_version()} ({platform.python_implementation()})",
        f"- packages: {', '.join(_packages())}",
    )


def _packages() -> Iterator[str]:
    for name in _PACKAGES:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            yield f"{name} is not installed"


def _machine(seen: Inventory) -> Iterator[str]:
    host = seen.host
    where = f"{host.surroundings} ({host.container})" if host.container else host.surroundings
    library = " ".join(platform.libc_ver())
    yield f"- system: {_system()}, kernel {host.kernel}, {platform.machine()}, C library {library}"
    yield f"- surroundings: {where}; {host.cpu_model}, {host.cpu_cores} cores"
    yield f"- RAM: {size(host.ram_available_bytes)} available of {size(host.ram_total_bytes)}"
    yield f"- disk for weights: {size(host.disk_free_bytes)} free at {host.disk_path}"
    yield f"- NVIDIA driver {seen.driver or 'unknown'}, CUDA {seen.cuda or 'unknown'}"
    if seen.nvml is not None:
        yield f"- NVML: {seen.nvml.code}: {seen.nvml.message}"
    yield from (f"- {problem.field}: {problem.message}" for problem in seen.problems)


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.system()


def _gpus(seen: Inventory) -> Iterator[str]:
    if not seen.gpus:
        return
    yield ""
    columns = ("GPU", "name", "compute capability", "memory", "used", "free", "temperature", "MIG", "visible", "UUID")
    yield from table(columns, [_gpu(gpu) for gpu in seen.gpus])
    for gpu in seen.gpus:
        yield from (f"- GPU {gpu.index} is held by {_holder(each)}" for each in gpu.holders)
        yield from (f"- GPU {gpu.index}, {problem.field}: {problem.message}" for problem in gpu.problems)
    for link in seen.links:
        way = f"{link.nvlinks} NVLinks" if link.nvlinks else f"PCIe, {link.path}"
        p2p = {True: "yes", False: "no", None: "unknown"}[link.p2p]
        yield f"- GPU {link.first} to GPU {link.second}: {way}, peer-to-peer: {p2p}"


def _gpu(gpu: Gpu) -> tuple[str, ...]:
    return (
        str(gpu.index),
        gpu.name,
        gpu.compute_capability or "unknown",
        size(gpu.memory_total_bytes),
        size(gpu.memory_used_bytes),
        size(gpu.memory_free_bytes),
        "unknown" if gpu.temperature_c is None else f"{gpu.temperature_c} C",
        gpu.mig.mode,
        "yes" if gpu.visible else "no",
        gpu.uuid or "unknown",
    )


def _holder(holder: Holder) -> str:
    where = " in a container" if holder.container else ""
    return f"pid {holder.pid}{where} ({holder.command or 'unknown command'}): {size(holder.used_bytes)}"


def _engines() -> Iterator[str]:
    rows = [
        (each.name, each.version or "unknown" if each.where else "-", each.kind or "-", each.where or each.note or "-")
        for each in engine_states()
    ]
    return table(("engine", "version", "kind", "where, or why not"), rows)


def _findings(findings: Sequence[Finding]) -> Iterator[str]:
    """What is wrong first, with its evidence; then a line for everything else."""
    order = {status: place for place, status in enumerate(_TROUBLE)}
    trouble = sorted((each for each in findings if each.status in order), key=lambda each: order[each.status])
    for finding in trouble:
        code = f" ({finding.code})" if finding.code else ""
        yield f"### {finding.status}: {finding.id}{code}"
        yield ""
        yield finding.seen
        if finding.evidence:
            yield from fenced(finding.evidence)
        if finding.remedy:
            yield f"Remedy: {finding.remedy}"
        if finding.command:
            yield from fenced((f"$ {finding.command}",))
        yield ""
    if not trouble:
        yield "Nothing wrong was found."
        yield ""
    yield from table(("check", "status", "seen"), _quiet(findings))


def _quiet(findings: Iterable[Finding]) -> list[tuple[str, ...]]:
    rest = [each for each in findings if each.status not in _TROUBLE]
    return [(each.id, each.status, each.seen) for each in sorted(rest, key=lambda each: each.status != OK)]


def _environment(env: Mapping[str, str]) -> Iterator[str]:
    """Variables that matter here: those of a closed list with their value, of the others only the name."""
    telling = sorted(name for name in env if name.startswith(_TELLING) or name in _TELLING_NAMES)
    shown = [f"{name}={env[name]}" if name in _VALUES_SHOWN else f"{name} is set" for name in telling]
    return fenced(shown or ["none of those that matter is set"])
