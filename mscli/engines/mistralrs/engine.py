"""mistral.rs: its program `mistralrs serve`, the older `mistralrs-server`, or the wheel behind mscli's own server.

Flags as the project's sources state them: mistralrs-server until 0.8.4 (mistralrs-server/src/main.rs), mistralrs from
0.7 to 0.9.2 (mistralrs-cli/src/args). Both listen on 0.0.0.0 when they are not told otherwise.
"""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from mscli.catalog.model import Model
from mscli.catalog.profile import Profile
from mscli.engines.engine import (
    LOADING,
    SERVERS,
    STARTING,
    Capabilities,
    Command,
    Installation,
    Observed,
    Serving,
    option_flags,
)
from mscli.engines.mistralrs import installation as mistralrs_installation
from mscli.engines.mistralrs.installation import CURRENT, OLDER, WHEEL
from mscli.engines.templates import template_file
from mscli.errors import Code, MscliError
from mscli.planning.plan import Plan
from mscli.weights.progress import WeightFiles

# The first versions that know Mistral 3: the program's, and the wheel whose settings are those used here.
OLDEST = {CURRENT: (0, 7), OLDER: (0, 5), WHEEL: (0, 9, 5)}
# The last version whose flag for the KV cache's size is known; later ones size it by themselves.
KV_FLAG_UNTIL = (0, 9, 2)
FOLDER = SERVERS / "model_folder.py"

_COLOUR = r"(?:\x1b\[[0-9;]*m)*"
_STAGES = (
    (re.compile(r"Loading model|Loading weights"), LOADING),
    (re.compile(r"^loading |Starting|Using automatic device mapping|DType selected"), STARTING),
)
_MAPPED = re.compile(r"Layers (\d+)-(\d+): (\w+)")


class MistralRs:
    """The engine of `--isq`: safetensors, quantized while loading."""

    name = mistralrs_installation.NAME
    program = "mistralrs"
    # No reasoning: it leaves [THINK] and [/THINK] out, so that thought and answer run together. No key: its project
    # refers to a reverse proxy.
    capabilities = Capabilities(
        vision=True,
        tools=True,
        reasoning=False,
        kv_types=("f16",),
        multi_gpu=True,
        api_key=False,
        cpu=True,
    )
    health_path = "/health"
    stop_signals: tuple[int, ...] = (signal.SIGTERM,)
    stop_grace_s = 10.0

    def locate(self) -> Installation:
        """See `mistralrs_installation.locate`."""
        return mistralrs_installation.locate()

    def locate_for(self, device: str) -> Installation:
        """See `mistralrs_installation.locate_for`."""
        return mistralrs_installation.locate_for(device)

    def command(
        self, plan: Plan, profile: Profile, model: Model, weights: WeightFiles, serving: Serving, found: Installation
    ) -> Command:
        """See the contract. The model is given as a folder called like the alias: that is the name it is served by."""
        _refuse(found, plan)
        template = template_file(model, serving.run_dir)
        words = {CURRENT: _current, OLDER: _older, WHEEL: _wheel}.get(found.kind, _current)
        argv = (
            *(sys.executable, str(FOLDER), weights.model, serving.alias, str(plan.context)),
            *words(plan, profile, model, serving, found, next(iter(template), None)),
        )
        env = {"NO_COLOR": "1", "CUDA_VISIBLE_DEVICES": ",".join(plan.devices), "HF_HUB_OFFLINE": "1", **profile.env}
        return Command(argv, env, template)

    def stage(self, line: str) -> str | None:
        """See the contract."""
        return next((stage for pattern, stage in _STAGES if pattern.search(line)), None)

    def observe(self, log: str) -> Observed:
        """Where its device map put the layers, as its log tells; the output layer goes with the last of them."""
        placed = {
            int(number): device
            for first, last, device in _MAPPED.findall(re.sub(_COLOUR, "", log))
            for number in range(int(first), int(last) + 1)
        }
        if not placed:
            return Observed()
        on_gpus = sum(device != "cpu" for device in placed.values())
        with_output = placed[max(placed)] != "cpu"
        return Observed(gpu_layers=(on_gpus + with_output, len(placed) + 1))


def _refuse(found: Installation, plan: Plan) -> None:
    """Raises ENGINE_UNSUPPORTED for what the version found cannot do; an unknown one gets the benefit of the doubt."""
    version, oldest = _version(found), OLDEST.get(found.kind)
    if version and oldest and version < oldest:
        raise MscliError(
            Code.ENGINE_UNSUPPORTED,
            f"{found.path} is mistral.rs {found.version} ({found.kind}); {'.'.join(map(str, oldest))} is needed",
            mistralrs_installation.GET_ONE,
            {"cause": "version_backend_old"},
        )
    if plan.devices and found.kind == WHEEL and set(found.beside) == {"mistralrs"}:
        raise MscliError(
            Code.ENGINE_UNSUPPORTED,
            f"the wheel mistralrs {found.version} has no GPU code",
            mistralrs_installation.GET_ONE,
            {"cause": "backend_no_gpu_build"},
        )


def _version(found: Installation) -> tuple[int, ...] | None:
    from mscli.planning.request import parse_version  # the planner is not needed where servers are only stopped

    return parse_version(found.version)


def _current(
    plan: Plan, profile: Profile, _model: Model, serving: Serving, found: Installation, template: Path | None
) -> Iterator[str]:
    """`mistralrs serve`: one command, all flags behind it."""
    version = _version(found)
    yield from found.argv if found.kind == CURRENT else (mistralrs_installation.PROGRAMS[0], "serve")
    yield from ("-m", serving.alias, "--host", serving.host, "--port", str(serving.port), "--token-source", "none")
    yield from ("--max-seqs", str(plan.users))
    yield from _isq(plan)
    if template:
        yield from ("--jinja-explicit", str(template))
    if plan.images:
        yield from ("--max-num-images", str(plan.images))
    if not plan.devices:
        yield "--cpu"
    elif version and version <= KV_FLAG_UNTIL:
        yield from ("--pa-context-len", _kv_tokens(plan))
    if layers := plan.settings.get("device_layers"):
        yield from ("--device-layers", str(layers))
    yield from option_flags(profile.options)


def _older(
    plan: Plan, profile: Profile, model: Model, serving: Serving, found: Installation, template: Path | None
) -> Iterator[str]:
    """`mistralrs-server`: flags of the server, then the kind of model with its own."""
    yield from found.argv
    yield from ("--serve-ip", serving.host, "--port", str(serving.port), "--token-source", "none")
    yield from ("--max-seqs", str(plan.users))
    yield from _isq(plan)
    if template:
        yield from ("--jinja-explicit", str(template))
    if plan.devices:
        yield from ("--pa-ctxt-len", _kv_tokens(plan))
    else:
        yield "--cpu"
    if layers := plan.settings.get("device_layers"):
        yield from ("--num-device-layers", str(layers))
    yield from option_flags(profile.options)
    sees = model.architecture.vision is not None
    yield from ("vision-plain" if sees else "plain", "-m", serving.alias, "-a", "mistral3" if sees else "mistral")


def _wheel(
    plan: Plan, profile: Profile, model: Model, serving: Serving, found: Installation, template: Path | None
) -> Iterator[str]:
    """mscli's own server around the wheel."""
    yield from found.argv
    yield from ("--model", serving.alias, "--alias", serving.alias)
    yield from ("--context", str(plan.context), "--users", str(plan.users), "--images", str(plan.images))
    yield from _isq(plan)
    values = {
        "--chat-template": template,
        "--temperature": model.sampling.temperature,
        "--top-p": model.sampling.top_p,
        "--kv-tokens": _kv_tokens(plan) if plan.devices else None,
    }
    for flag, value in values.items():
        if value is not None:
            yield from (flag, str(value))
    yield from option_flags(profile.options)


def _isq(plan: Plan) -> tuple[str, ...]:
    isq = plan.settings.get("isq")
    return ("--isq", str(isq)) if isq else ()


def _kv_tokens(plan: Plan) -> str:
    return str(plan.settings.get("paged_attention_context", plan.context * plan.users))
