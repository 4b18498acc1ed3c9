"""vLLM in its publisher's container image, run by Docker or Podman: the flags, stages and causes are vLLM's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mscli.catalog.model import Model
from mscli.catalog.profile import Profile
from mscli.diagnosis.causes import Cause
from mscli.engines.containers import run as container_run
from mscli.engines.containers.client import DOCKER, Client, EngineInfo, find_client
from mscli.engines.engine import PLAN, Command, Installation, Serving, StageListener
from mscli.engines.vllm.engine import OLDEST, Vllm
from mscli.errors import Code, MscliError
from mscli.frozen import replace
from mscli.paths import MARK
from mscli.planning.plan import Plan
from mscli.planning.request import parse_version
from mscli.weights.progress import WeightFiles

NAME = "vllm-docker"


class VllmDocker(Vllm):
    """vLLM in a container. Its output is the log; the process that mscli spawns is the container's client."""

    name = NAME
    program = DOCKER
    capabilities = replace(Vllm.capabilities, gateway=None)

    def locate(self) -> Installation:
        """See the contract: the client of Docker or Podman. vLLM's version is the image's, so none is told here."""
        found = find_client()
        beside = {found.kind: found.version} if found.version else {}
        return Installation(NAME, found.argv, None, found.kind, Path(found.argv[0]), beside, env=found.settings)

    def command(
        self, plan: Plan, profile: Profile, model: Model, weights: WeightFiles, serving: Serving, found: Installation
    ) -> Command:
        """See the contract. API key and mark go from the client's environment into the container's."""
        from mscli.engines.containers.run import folders
        from mscli.engines.vllm.flags import flags

        image = _image(profile)
        version = parse_version(container_run.tag_version(image))
        _refuse(image, version, model)
        what = container_run.contained(serving, found, image)
        local = Path(weights.model).is_absolute()
        served = str(Path(weights.model).resolve()) if local else weights.model
        inside = replace(serving, host="0.0.0.0", port=container_run.INSIDE_PORT)
        secrets = {"VLLM_API_KEY": serving.api_key_file} if serving.api_key_file else {}
        argv = (
            *container_run.run(
                what, found.kind, serving, plan.devices, folders(Path(served)) if local else (),
                _environment(plan, profile, model), (MARK, *secrets),
            ),
            "--entrypoint", "vllm", image, "serve", served,
            *flags(plan, model, inside, profile.options, version),
        )  # fmt: skip
        return Command(argv, found.env, secrets=secrets, contained=what)

    def prepare_image(
        self,
        plan: Plan,
        profile: Profile,
        found: Installation,
        listener: StageListener,
        offline: bool,
        agree: Callable[[int], bool] | None,
    ) -> None:
        """See the contract."""
        from mscli.engines.containers.image import have_image

        client, image = _client(found), _image(profile)
        listener.stage(PLAN, f"checking {client.kind} for {image}")
        have_image(client, _able(client, plan), image, listener, offline, agree)

    def check_host(self, plan: Plan, profile: Profile, found: Installation, offline: bool) -> None:
        """See the contract."""
        from mscli.engines.containers.client import image_id
        from mscli.engines.containers.image import not_here

        client, image = _client(found), _image(profile)
        _able(client, plan)
        if offline and not image_id(client, image):
            raise not_here(image)

    def prepare_start(
        self, command: Command, plan: Plan, profile: Profile, found: Installation, listener: StageListener
    ) -> None:
        """See the contract: a throw-away container with the planned GPUs, and one whose vLLM reads the flags."""
        from mscli.engines.containers.run import probe_gpus
        from mscli.engines.vllm.parser import check_image_flags

        client, image = _client(found), _image(profile)
        if plan.devices:
            listener.stage(PLAN, f"trying a {client.kind} container with the GPUs")
            if cause := probe_gpus(client, image, plan.devices):
                raise _refused(cause, Code.ENGINE_UNSUPPORTED)
        check_image_flags(client, image, command, plan, listener)

    def health(self, found: Installation) -> tuple[str, str | None]:
        """See the contract."""
        from mscli.engines.containers.run import probe_engine

        client = _client(found)
        name = " ".join(filter(None, (client.kind, client.version)))
        engine = probe_engine(client)
        if isinstance(engine, Cause):
            return name, f"{engine.summary} ({'; '.join(engine.evidence)}). {engine.remedy}"
        rootless = ", rootless" if engine.rootless else ""
        return (f"{name} (engine {engine.version}{rootless})" if client.kind == DOCKER else f"{name}{rootless}"), None


def _client(found: Installation) -> Client:
    return Client(found.argv, found.kind, found.beside.get(found.kind), found.env)


def _image(profile: Profile) -> str:
    assert profile.image, "the catalog refuses profiles of this engine without an image"
    return profile.image


def _answering(client: Client) -> EngineInfo:
    from mscli.engines.containers.run import probe_engine

    engine = probe_engine(client)
    if isinstance(engine, Cause):
        raise _refused(engine, Code.ENGINE_MISSING)
    return engine


def _able(client: Client, plan: Plan) -> EngineInfo:
    """The container engine, of this machine and able to give GPUs. Raises ENGINE_MISSING or ENGINE_UNSUPPORTED."""
    from mscli.engines.containers.run import no_runtime, remote

    engine = _answering(client)
    if elsewhere := remote(client):
        raise MscliError(
            Code.ENGINE_UNSUPPORTED,
            f"{client.kind} uses an engine on another machine ({elsewhere}), with other GPUs and folders",
            "Run mscli on that machine. Or use this machine's engine: unset DOCKER_HOST; docker context use default",
            {"cause": "engine_missing"},
        )
    if plan.devices and (cause := no_runtime(client, engine)):
        raise _refused(cause, Code.ENGINE_UNSUPPORTED)
    return engine


def _refused(cause: Cause, code: Code) -> MscliError:
    return MscliError(code, cause.summary, cause.remedy, {"cause": cause.code, "evidence": list(cause.evidence)})


def _refuse(image: str, version: tuple[int, ...] | None, model: Model) -> None:
    """Raises ENGINE_UNSUPPORTED for an image whose tag says that it cannot do this; one whose does not may try."""
    if version and version < OLDEST:
        raise MscliError(
            Code.ENGINE_UNSUPPORTED,
            f"the image {image} is too old for {model.title}",
            f"Name one of vLLM {'.'.join(map(str, OLDEST))} or later in the profile's `image`.",
            {"cause": "version_backend_old"},
        )


def _environment(plan: Plan, profile: Profile, model: Model) -> dict[str, str]:
    """What is set inside the container."""
    # The weights are mounted and checked; what vLLM asked the Hub now could only be something else.
    env = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    if not plan.devices:
        from mscli.planning.memory.vllm import cpu_kv_gib

        env["VLLM_CPU_KVCACHE_SPACE"] = str(cpu_kv_gib(plan, model))
    return {**env, **profile.env}
