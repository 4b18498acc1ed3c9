"""Docker or Podman as several checks see it, and GPUs in containers: the client asked once what it knows of its engine;
CDI specifications held against this machine, a trial container, and our own that run.

Specifications are read line by line for the few keys that matter: nvidia-ctk writes YAML or JSON of hundreds of lines,
which a parser in Python takes a tenth of a second for.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

from mscli.doctor.checks.check import CheckContext, Finding, counted, fail, ok, skipped, warn
from mscli.engines.containers import client as container_client
from mscli.engines.containers.client import (
    DOCKER,
    PODMAN,
    Client,
    EngineInfo,
    Said,
    call,
    client_program,
    engine_info,
    last_line,
    telling,
)
from mscli.engines.containers.run import remote
from mscli.frozen import frozen, replace
from mscli.inventory.host import text_of
from mscli.paths import container_settings

AREA = "containers"
PROFILE_ENGINE = "vllm-docker"
# Podman starts anew for every call and takes up to a second on a slow disk.
_QUICK_S, _THOROUGH_S = 2.0, 20.0
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
    found = engine_info(caller, _THOROUGH_S if thorough(ctx) else _QUICK_S)
    if isinstance(found, Said):
        return ContainerEngine(caller, EngineInfo(kind), found.text or "no output")
    return ContainerEngine(replace(caller, kind=found.kind), found)


# The later goes before the earlier where both name a device.
FOLDERS = ("etc/cdi", "var/run/cdi")
KIND = "nvidia.com/gpu"

_KIND = re.compile(r"\"?\bkind\"?\s*:\s*[\"']?([\w./-]+)")
_PATHS = re.compile(r"\"?\b(?:path|hostPath)\"?\s*:\s*[\"']?(/[^\"'\s,\]}]+)")
_DRIVER = re.compile(r"/lib(?:cuda|nvidia)[\w-]*\.so\.(\d{3,}\.\d+(?:\.\d+)?)$")
_GPU = re.compile(r"/dev/nvidia(\d+)$")


@frozen
class Spec:
    """One specification of NVIDIA GPUs. `missing`: files and devices that it names and that are not here.

    `drivers`: releases of the driver's libraries by their names. `gpus`: the numbers of its GPU devices. `fault`: why
    the file cannot be read as a specification.
    """

    path: Path
    missing: tuple[str, ...] = ()
    drivers: frozenset[str] = frozenset()
    gpus: frozenset[int] = frozenset()
    fault: str | None = None


def specs(root: Path) -> tuple[Spec, ...]:
    """The specifications of NVIDIA GPUs below `root`, which stands for /, the one that counts last."""
    return tuple(spec for folder in FOLDERS for path in _files(root / folder) if (spec := _spec(path, root)))


def _files(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(path for path in folder.iterdir() if path.suffix in (".yaml", ".yml", ".json"))
    except OSError:
        return


def _spec(path: Path, root: Path) -> Spec | None:
    text = text_of(path)
    kind = _KIND.search(text)
    if kind and kind[1] != KIND:
        return None
    if kind is None:
        return Spec(path, fault="no device kind") if "nvidia" in path.name else None
    if path.suffix == ".json" and (fault := _json_fault(text)):
        return Spec(path, fault=fault)
    named = tuple(dict.fromkeys(_PATHS.findall(text)))
    missing = tuple(each for each in named if not _there(root, each))
    drivers = frozenset(found[1] for each in named if (found := _DRIVER.search(each)))
    gpus = frozenset(int(found[1]) for each in named if (found := _GPU.search(each)))
    return Spec(path, missing, drivers, gpus)


def _json_fault(text: str) -> str | None:
    try:
        json.loads(text)
    except ValueError as fault:
        return f"invalid JSON: {fault}"
    return None


def _there(root: Path, named: str) -> bool:
    """Whether it is on this machine; what this user may not look at counts as being there."""
    try:
        (root / named.lstrip("/")).stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


LABEL = "mscli.instance"
LONGER = "`mscli doctor --only containers` waits longer"
# A container starts within a second; the first one after a start of the machine takes much longer.
_TRIAL_QUICK_S, _TRIAL_THOROUGH_S = 2.0, 90.0
_WORTH_TRYING_S, _CLEAN_UP_S = 0.8, 0.3
SHORT_S = 1.0
# nvidia-smi comes from the host; to run it an image needs no more than glibc, which these have. Best first.
_GOOD = re.compile(r"vllm|cuda|nvidia|ollama|pytorch|tensorflow|text-generation|ubuntu|debian|rocky|fedora|python")
_BAD = re.compile(r"alpine|busybox|scratch|hello-world|distroless|<none>")
_SEEN = re.compile(r"^GPU \d+: .*\(UUID: (GPU-[^)]+)\)", re.MULTILINE)


def throw_away(ctx: CheckContext) -> Iterator[Finding]:
    """nvidia-smi in a container that is gone afterwards, from an image that is here: nothing is ever pulled for it."""
    begun = time.monotonic()
    found = container_engine(ctx)
    if found is None or found.said or remote_host(ctx, found):
        yield skipped("no container engine answers on this machine")
        return
    if not ctx.inventory.gpus:
        yield skipped("no NVIDIA GPU on this machine")
        return
    image = _image(ctx, found)
    if image is None:
        yield skipped("no image to try (none is pulled for it)")
        return
    left_s = (_TRIAL_THOROUGH_S if thorough(ctx) else _TRIAL_QUICK_S) - (time.monotonic() - begun)
    if left_s < _WORTH_TRYING_S:
        yield skipped(f"the container engine is too slow to try a container ({LONGER})")
    else:
        yield _tried(ctx, found, image, left_s)


def _tried(ctx: CheckContext, found: ContainerEngine, image: str, timeout_s: float) -> Finding:
    words = (*_gpus(found), "--env", "NVIDIA_DRIVER_CAPABILITIES=compute,utility", "--entrypoint", "nvidia-smi", image)
    told = container_client.throw_away(found.client, *words, "-L", timeout_s=timeout_s, clean_up_s=_CLEAN_UP_S)
    return _late(ctx, image, timeout_s) if told.status is None else _judged(ctx, found, image, told)


def _judged(ctx: CheckContext, found: ContainerEngine, image: str, told: Said) -> Finding:
    if told.status != 0:
        code, remedy = cause_of(ctx, told.text, "docker_gpu")
        seen = f"a container of {image} with all GPUs fails: {last_line(told.text)}"
        return fail(code, seen, remedy, *telling(told.text)[-4:], command=_by_hand(found, image))
    inside = set(_SEEN.findall(told.out))
    missing = [f"GPU {gpu.index} ({gpu.uuid})" for gpu in ctx.inventory.gpus if gpu.uuid and gpu.uuid not in inside]
    if missing:
        return fail(
            "docker_gpu",
            f"a container of {image} sees {len(inside)} of {counted(len(ctx.inventory.gpus), 'GPU')}",
            "Check NVIDIA_VISIBLE_DEVICES in the image, and CDI specifications:",
            f"missing: {', '.join(missing)}",
            command=_by_hand(found, image),
        )
    return ok(f"a container of {image} sees all GPUs ({len(inside)})", *told.out.strip().splitlines()[:4])


def _late(ctx: CheckContext, image: str, timeout_s: float) -> Finding:
    seen = f"a container of {image} did not end within {timeout_s:.1f} s"
    if thorough(ctx):
        return warn(None, seen, "Look at the daemon's log:", command="journalctl -u docker -e")
    return skipped(f"{seen} ({LONGER})")


def _gpus(found: ContainerEngine) -> tuple[str, ...]:
    by_cdi = (
        any(each.startswith("nvidia.com/gpu") for each in found.engine.cdi) and "nvidia" not in found.engine.runtimes
    )
    return ("--device", "nvidia.com/gpu=all") if found.kind == PODMAN or by_cdi else ("--gpus", "all")


def _by_hand(found: ContainerEngine, image: str) -> str:
    return f"{found.kind} run --rm {' '.join(_gpus(found))} --entrypoint nvidia-smi {image}"


def _image(ctx: CheckContext, found: ContainerEngine) -> str | None:
    """An image that is here: the profile's, else one that has very likely what nvidia-smi needs."""
    here = images(ctx, found)
    own = ctx.chosen.profile.image if ctx.chosen and wanted(ctx) else None
    if own and own in here:
        return own
    good = [name for name in here if _GOOD.search(name) and not _BAD.search(name)]
    return min(good, key=_rank, default=None)


def _rank(name: str) -> int:
    found = _GOOD.search(name)
    return _GOOD.pattern.split("|").index(found[0]) if found else 99


def own_containers(ctx: CheckContext) -> Iterator[Finding]:
    """Whether the containers of our instances still have their GPUs: after a daemon-reload the engine goes on, deaf."""
    found = container_engine(ctx)
    if found is None or found.said:
        yield skipped("no container engine answers")
        return
    shown = (
        '{{.ID}} {{.Label "mscli.instance"}}' if found.kind == DOCKER else '{{.ID}} {{index .Labels "mscli.instance"}}'
    )
    listed = call(found.client, "ps", "--filter", f"label={LABEL}", "--format", shown, timeout_s=SHORT_S)
    if listed.status != 0:
        yield skipped(f"{found.kind} cannot list running containers")
        return
    running = [line.split(maxsplit=1) for line in listed.out.splitlines() if line.strip()]
    if not running or not ctx.inventory.gpus:
        yield ok(
            f"running containers of instances: {len(running)}" if running else "no running containers of instances"
        )
        return
    for container, *label in running:
        yield _asked(ctx, found, container, label[0] if label else container)


def _asked(ctx: CheckContext, found: ContainerEngine, container: str, name: str) -> Finding:
    told = call(found.client, "exec", container, "nvidia-smi", "-L", timeout_s=SHORT_S)
    if told.status is None:
        return warn(
            None,
            f"the container of {name} does not answer",
            "Look at its log:",
            command=f"{found.kind} logs {container}",
        )
    if told.status == 0 and _SEEN.search(told.out):
        return ok(f"the container of {name} has its GPUs ({len(_SEEN.findall(told.out))})")
    code, remedy = cause_of(ctx, told.text, "container_gpu_lost")
    seen = f"the container of {name} has lost its GPUs: {last_line(told.text)}"
    return fail_or_warn(ctx, code, seen, remedy, *telling(told.text)[-4:], command=f"mscli restart {name}")
