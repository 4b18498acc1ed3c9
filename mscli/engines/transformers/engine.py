"""Hugging Face Transformers: a model in bfloat16, or in 4 or 8 bits through bitsandbytes, behind mscli's own server.

`transformers serve` is not used: it names a model by its path, knows no API key and no context, gives Mistral's calls
of tools back as text and answers images with an error (seen with 5.23). The server keeps its HTTP shape.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

from mscli.catalog.model import Model
from mscli.catalog.profile import OptionValue, Profile
from mscli.engines import serving as servers
from mscli.engines import templates
from mscli.engines.engine import LOADING, STARTING, Capabilities, Cause, Command, Installation, Observed, Serving
from mscli.engines.python_environment import (
    PythonEnvironment,
    environment_in,
    environment_of,
    make_environment,
    this_environment,
)
from mscli.errors import Code, MscliError
from mscli.paths import places, transformers_place
from mscli.planning.plan import Plan
from mscli.weights.files import WeightFiles
from mscli.weights.progress import Listener

NAME = "transformers"
# The first version that knows what the server says to it; mistral3 itself came with 4.50.
OLDEST = (4, 56)
# What the server imports, and what is there only for some plans.
NEEDED = ("transformers", "torch", "accelerate")
BESIDE = ("torch", "bitsandbytes", "torchvision")
VERSIONS = ">=5,<6"
REQUIREMENTS = (
    *("torch", "torchvision", "accelerate>=1.10", "bitsandbytes>=0.46"),
    *("mistral-common[image]>=1.8", "pillow", "jinja2>=3.1"),
)
ABSENT = "absent"  # what is shown of an engine that is not here yet
SERVER = Path(servers.__file__).parent / "transformers_server.py"
TEMPLATE = Path(templates.__file__).parent / "mistral-tools.jinja"
GET_ONE = (
    "Install it in mscli's own environment: mscli engines install transformers. Or name one that is there: "
    "export MSCLI_TRANSFORMERS=/path/to/its/environment"
)

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
    )
    health_path = "/health"
    stop_signals: tuple[int, ...] = (signal.SIGTERM,)
    stop_grace_s = 10.0

    def locate(self) -> Installation:
        """The environment that MSCLI_TRANSFORMERS names, else mscli's own, else that of `transformers` on PATH, else
        the one that runs mscli. Starts nothing. Raises ENGINE_MISSING with the way to get one.
        """
        missing: tuple[str, ...] = NEEDED
        for kind, environment in _environments():
            found = environment.versions(NEEDED)
            missing = tuple(name for name in NEEDED if name not in found)
            if not missing:
                return _installation(kind, environment)
            if kind == "named":
                break
        raise MscliError(
            Code.ENGINE_MISSING, f"Transformers was not found: {' and '.join(missing)} missing", GET_ONE
        )  # fmt: skip

    def command(
        self, plan: Plan, profile: Profile, model: Model, weights: WeightFiles, serving: Serving, found: Installation
    ) -> Command:
        """See the contract. `options` go to the server, which refuses what it does not know."""
        _refuse(found, plan)
        template = serving.run_dir / TEMPLATE.name
        flags = [
            *("--model", weights.model, "--alias", serving.alias, "--host", serving.host, "--port", str(serving.port)),
            *("--context", str(plan.context), "--users", str(plan.users), "--images", str(plan.images)),
            *("--device", _device(plan), "--chat-template", str(template)),
            *_optional(plan, model, serving),
            *_option_flags(profile.options),
        ]
        # The weights are here and checked; what Transformers asked the Hub now could only be something else.
        env = {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "CUDA_VISIBLE_DEVICES": ",".join(plan.devices)}
        absent = (str(own_environment() / "bin" / "python"), str(SERVER))
        start = absent if found.kind == ABSENT else found.argv
        return Command((*start, *flags), {**env, **profile.env}, {template: TEMPLATE.read_text()})

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

    def diagnose(self, log: str, exit_status: int | None) -> Cause:
        """See the contract."""
        from mscli.engines.library_causes import cause
        from mscli.engines.transformers.signs import SIGNS

        return cause(SIGNS, log, exit_status)


def install(listener: Listener, *, version: str | None = None) -> Installation:
    """Put Transformers (of that version) with what it needs into mscli's own environment. Blocks for the download, some
    3 GB with CUDA.

    Raises MscliError(DOWNLOAD_FAILED) with the installer's last words.
    """
    wanted = f"transformers=={version}" if version else f"transformers{VERSIONS}"
    return _installation("own", make_environment(own_environment(), (wanted, *REQUIREMENTS), listener))


def own_environment() -> Path:
    """The Python environment in which `install` puts Transformers."""
    return places().engines / NAME


def _environments() -> Iterator[tuple[str, PythonEnvironment]]:
    """Where to look, in order; one that the user names ends the search."""
    if named := transformers_place():
        environment = environment_in(named)
        if environment is None:
            raise MscliError(
                Code.ENGINE_MISSING,
                f"MSCLI_TRANSFORMERS is {named}, and that is no Python environment: it has no bin/python",
                "Let it name the folder of an environment that has Transformers, or unset it.",
                {"path": str(named)},
            )
        yield "named", environment
    if own := environment_in(own_environment()):
        yield "own", own
    if (found := shutil.which("transformers")) and (environment := environment_of(Path(found).absolute())):
        yield "program", environment
    yield "current", this_environment()


def _installation(kind: str, environment: PythonEnvironment) -> Installation:
    argv = (str(environment.python), str(SERVER))
    beside = environment.versions(BESIDE)
    gpu = "+cpu" not in beside["torch"] if "torch" in beside else None
    version = environment.version("transformers")
    return Installation(NAME, argv, version, kind, environment.python, beside, gpu=gpu, cpu=True)


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
        raise _unsupported(f"{found.path} has no bitsandbytes, which quantises", f"{add} bitsandbytes", "bitsandbytes")
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


def _optional(plan: Plan, model: Model, serving: Serving) -> Iterator[str]:
    values = {
        "--quantization": plan.settings.get("quantization"),
        "--api-key-file": serving.api_key_file,
        "--temperature": model.sampling.temperature,
        "--top-p": model.sampling.top_p,
    }
    for flag, value in values.items():
        if value is not None:
            yield from (flag, str(value))
    if plan.settings.get("host_layers"):
        yield "--offload"


def _option_flags(options: Mapping[str, OptionValue]) -> Iterator[str]:
    """Options as given: True stands alone, False is left out."""
    for key, value in options.items():
        if value is not False:
            yield from (f"--{key}",) if value is True else (f"--{key}", str(value))
