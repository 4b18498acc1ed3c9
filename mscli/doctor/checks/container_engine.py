"""Docker or Podman as several checks see it: the client asked once what it knows of its engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mscli.doctor.checks.check import CheckContext, Finding, fail, warn
from mscli.engines.containers.client import DOCKER, PODMAN, Client, EngineInfo, Said, call, client_program, engine_info
from mscli.engines.containers.run import remote
from mscli.frozen import frozen
from mscli.paths import container_settings

AREA = "containers"
PROFILE_ENGINE = "vllm-docker"
# Podman starts anew for every call and takes up to a second on a slow disk.
QUICK_S, THOROUGH_S = 2.0, 20.0
IMAGES_TIMEOUT_S, CONTEXT_TIMEOUT_S = 1.0, 2.0


@frozen
class ContainerEngine:
    """A client and the container engine behind it. `said`: why that gives no answer; empty where it does."""

    client: Client
    engine: EngineInfo
    said: str = ""

    @property
    def kind(self) -> str:
        """docker or podman."""
        return self.client.kind


def container_engine(ctx: CheckContext) -> ContainerEngine | None:
    """The container engine that mscli would use: the one that is named, else Docker, else Podman; None: no client."""
    return ctx.once("containers", lambda: _client(ctx))


def wanted(ctx: CheckContext) -> bool:
    """Whether the profile asked about runs in a container."""
    return ctx.wants(PROFILE_ENGINE)


def thorough(ctx: CheckContext) -> bool:
    """Whether containers may take their time: they were asked about, or the profile runs in one."""
    return AREA in ctx.asked or wanted(ctx)


def images(ctx: CheckContext, found: ContainerEngine) -> tuple[str, ...]:
    """The images that the engine has, as name:tag."""
    return ctx.once("images", lambda: _images(found))


def fail_or_warn(
    ctx: CheckContext, code: str, seen: str, remedy: str, *evidence: str, command: str | None = None
) -> Finding:
    """A failure where a container with a GPU could be wanted here, else a warning."""
    severity = fail if wanted(ctx) or ctx.inventory.gpus else warn
    return severity(code, seen, remedy, *evidence, command=command)


def cause_of(ctx: CheckContext, said: str, otherwise: str) -> tuple[str, str]:
    """The cause that a client's words show, and its remedy; `otherwise` where they show none."""
    return ctx.cause(said, "containers", otherwise)


def remote_host(ctx: CheckContext, found: ContainerEngine) -> str | None:
    """The address of the engine where that is another machine, whose GPUs and folders are not these; else None."""
    return ctx.once("elsewhere", lambda: remote(found.client, found.engine.context, CONTEXT_TIMEOUT_S))


def _images(found: ContainerEngine) -> tuple[str, ...]:
    listed = call(found.client, "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", timeout_s=IMAGES_TIMEOUT_S)
    return tuple(listed.out.split()) if listed.status == 0 else ()


def _client(ctx: CheckContext) -> ContainerEngine | None:
    program = client_program(ctx.env)
    if program is None:
        return None
    # Its name has to do for one whose engine does not answer: to ask for its version would take Podman a second more.
    kind = PODMAN if PODMAN in Path(program).name else DOCKER
    caller = Client((program,), kind, None, container_settings(ctx.env), ctx.env)
    found = engine_info(caller, THOROUGH_S if thorough(ctx) else QUICK_S)
    if isinstance(found, Said):
        return ContainerEngine(caller, EngineInfo(kind), found.text or "no output")
    return ContainerEngine(replace(caller, kind=found.kind), found)
