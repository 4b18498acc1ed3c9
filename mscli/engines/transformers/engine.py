"""Hugging Face Transformers: a model in bfloat16, or in 4 or 8 bits through bitsandbytes, behind mscli's own server.

`transformers serve` is not used: it names a model by its path, knows no API key and no context, gives Mistral's calls
of tools back as text and answers images with an error (seen with 5.23). HTTP is the gateway's.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator

from mscli.catalog.model import Model
from mscli.catalog.profile import Profile
from mscli.engines.engine import (
    LOADING,
    STARTING,
    Capabilities,
    Command,
    Installation,
    Observed,
    Serving,
    option_flags,
)
from mscli.engines.templates import template_file
from mscli.engines.transformers import installation
from mscli.engines.transformers.installation import ABSENT, NAME, SERVER, own_environment
from mscli.errors import Code, MscliError
from mscli.planning.plan import Plan
from mscli.weights.progress import WeightFiles

# The first version that knows what the server says to it; mistral3 itself came with 4.50.
OLDEST = (4, 56)
_STAGES = ((re.compile(r"loading AutoModel"), LOADING), (re.compile(r"^loading "), STARTING))
_PLACED = re.compile(r"placed weights: (\{.*\})")
_CONTEXT = re.compile(r"ready: .* context=(\d+)")


class Transformers:
    """The engine of safetensors files in Hugging Face's format."""

    name = NAME
    program = "transformers"
    capabilities = Capabilities(
        vision=True,
        tools=True,
        reasoning=True,
        kv_types=("f16",),
        multi_gpu=True,
        api_key=True,
        cpu=True,
        gateway="library",
    )
    health_path = "/health"
    stop_signals: tuple[int, ...] = (signal.SIGTERM,)
    stop_grace_s = 10.0

    def locate(self) -> Installation:
        """See the contract. Starts nothing."""
        return installation.locate()

    def command(
        self, plan: Plan, profile: Profile, model: Model, weights: WeightFiles, serving: Serving, found: Installation
    ) -> Command:
        """See the contract. `options` go to the server, which refuses what it does not know."""
        _refuse(found, plan)
        template = template_file(model, serving.run_dir)
        flags = [
            *("--model", weights.model, "--alias", serving.alias),
            *("--context", str(plan.context), "--users", str(plan.users), "--images", str(plan.images)),
            *("--device", _device(plan)),
            *(word for path in template for word in ("--chat-template", str(path))),
            *_optional(plan, model),
            *option_flags(profile.options),
        ]
        # The weights are here and checked; what Transformers asked the Hub now could only be something else.
        env = {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "CUDA_VISIBLE_DEVICES": ",".join(plan.devices)}
        absent = (str(own_environment() / "bin" / "python"), str(SERVER))
        start = absent if found.kind == ABSENT else found.argv
        return Command((*start, *flags), {**env, **profile.env}, template)

    def stage(self, line: str) -> str | None:
        """See the contract."""
        return next((stage for pattern, stage in _STAGES if pattern.search(line)), None)

    def observe(self, log: str) -> Observed:
        """The weights by device, as the server found them once loaded. The KV cache grows with each request."""
        placed, context = _PLACED.search(log), _CONTEXT.search(log)
        held: dict[str, int] = json.loads(placed[1]) if placed else {}
        total, on_gpus = sum(held.values()), sum(size for device, size in held.items() if device.startswith("cuda"))
        return Observed(
            context=int(context[1]) if context else None,
            weights_bytes=total or None,
            gpu_share=on_gpus / total if total else None,
        )


def _refuse(found: Installation, plan: Plan) -> None:
    """Raises ENGINE_UNSUPPORTED for what this environment lacks; one that is not there yet lacks nothing."""
    from mscli.planning.request import parse_version

    if found.kind == ABSENT:
        return
    add = f"{found.path} -m pip install"
    version = parse_version(found.version)
    if version and version < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise _unsupported(f"Transformers {found.version} is too old", f"{add} 'transformers>={oldest}'", NAME + "_old")
    if plan.settings.get("quantization") and "bitsandbytes" not in found.beside:
        raise _unsupported(f"{found.path} has no bitsandbytes, which quantizes", f"{add} bitsandbytes", "bitsandbytes")
    if plan.images and "torchvision" not in found.beside:
        raise _unsupported(f"{found.path} has no torchvision, which reads images", f"{add} torchvision", "python_env")
    if plan.devices and "+cpu" in found.beside.get("torch", ""):
        hint = f"Install a torch with CUDA: {add} torch --index-url https://download.pytorch.org/whl/cu128"
        raise _unsupported(f"the torch of {found.path} is built for CPUs only", hint, "backend_no_gpu_build")


def _unsupported(message: str, hint: str, cause: str) -> MscliError:
    return MscliError(Code.ENGINE_UNSUPPORTED, message, hint, {"cause": cause})


def _device(plan: Plan) -> str:
    """One GPU is named, so that what does not fit fails; only a device map spreads, over GPUs or host memory."""
    if not plan.devices:
        return "cpu"
    return "cuda:0" if len(plan.devices) == 1 and not plan.settings.get("host_layers") else "auto"


def _optional(plan: Plan, model: Model) -> Iterator[str]:
    values = {
        "--quantization": plan.settings.get("quantization"),
        "--temperature": model.sampling.temperature,
        "--top-p": model.sampling.top_p,
    }
    for flag, value in values.items():
        if value is not None:
            yield from (flag, str(value))
    if plan.settings.get("host_layers"):
        yield "--offload"
