"""What an Ollama server took for a model: by its log, and by what it says itself once the model is loaded; and what is
to be said about it before and after: too old, set up otherwise, or on the CPU."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mscli.catalog.model import Model, Variant
from mscli.engines.engine import Installation, Observed
from mscli.engines.llamacpp.engine import LlamaCpp
from mscli.engines.ollama.api import Api, Refusal
from mscli.engines.ollama.server import Server, address
from mscli.errors import Code, MscliError
from mscli.frozen import frozen
from mscli.inventory.inventory import Device, Holder
from mscli.planning.memory.ollama import LLAMA_SERVER
from mscli.planning.plan import Plan

_PLACED = re.compile(r"layers\.model=(\d+) .*?layers\.offload=(\d+)")
_OLD_BUFFER = re.compile(
    r"msg=\"(model weights|kv cache|compute graph)\" (?:buffer|backend|device)=(\S+).*? size=\"([\d.]+) ([GMK]iB)\""
)
_UNITS: Mapping[str, int] = {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10}


def of_log(log: str) -> Observed:
    """What the log's lines add up to: llama-server's since 0.30, before that those of Ollama's own engine."""
    seen = LlamaCpp().observe(log)
    sizes = _old_buffers(log)
    placed = _PLACED.search(log)
    return Observed(
        context=seen.context,
        weights_bytes=seen.weights_bytes or sizes.get("model weights"),
        kv_bytes=seen.kv_bytes or sizes.get("kv cache"),
        compute_bytes=seen.compute_bytes or sizes.get("compute graph"),
        gpu_layers=seen.gpu_layers or ((int(placed[2]), int(placed[1])) if placed else None),
    )


def devices(plan: Plan) -> tuple[Device, ...]:
    """The GPUs as they are now; none for a plan without any."""
    from mscli.inventory.detect import detect  # only worth its import where GPUs are used

    return detect(Path("/")).devices if plan.devices else ()


def of_server(
    api: Api,
    alias: str,
    plan: Plan,
    model: Model,
    version: str | None,
    before: tuple[Device, ...],
    settings: str | None = None,
) -> Observed:
    """What the server says it took, beside what NVML says it took from each GPU. `settings`: where the server's own
    make the model larger than planned, in words."""
    loaded = api.loaded(alias)
    if loaded is None:
        raise Refusal(None, f"it does not list {alias} among its loaded models")
    share = loaded.gpu_bytes / loaded.size_bytes if loaded.size_bytes else None
    fallen = share is not None and share < 1 and plan.devices
    reason = None
    if fallen:
        reason = settings or cpu_reason(plan, model, reserves_for_images(api, version), share, before)
    return Observed(
        context=loaded.context,
        gpu_share=share,
        gpu_bytes=_growth(before, devices(plan)),
        cpu_reason=reason,
    )


def _growth(before: tuple[Device, ...], after: tuple[Device, ...]) -> dict[str, int] | None:
    """By how many bytes each GPU's free memory shrank during the load; None where NVML does not tell."""
    free = {device.uuid: device.free_bytes for device in after}
    pairs = {device.uuid: (device.free_bytes, free.get(device.uuid)) for device in before}
    grown = {uuid: was - now for uuid, (was, now) in pairs.items() if was is not None and now is not None}
    return grown if grown and len(grown) == len(before) else None


def _old_buffers(log: str) -> dict[str, int]:
    """Bytes by kind of buffer as Ollama's own engine logged them; a later line for the same device counts anew."""
    sizes = {(kind, device): float(size) * _UNITS[unit] for kind, device, size, unit in _OLD_BUFFER.findall(log)}
    totals: dict[str, int] = {}
    for (kind, _), size in sizes.items():
        totals[kind] = totals.get(kind, 0) + round(size)
    return totals


# The first version whose own engine runs the vision encoder of Mistral Small 3.x. By number, since nothing tells it
# before the weights are fetched: a server names the architecture that it does not know when it loads the model, and
# whether the registry refuses the tag to an older one (as it does for newer models) is not known.
OLDEST_FOR: Mapping[str, tuple[int, ...]] = {"mistral-small3.1": (0, 6, 5), "mistral-small3.2": (0, 6, 5)}

# Settings that change what is served, and that only the server's own environment sets.
_SERVER_SETTINGS = (
    "OLLAMA_MODELS",
    "OLLAMA_CONTEXT_LENGTH",
    "OLLAMA_KV_CACHE_TYPE",
    "OLLAMA_FLASH_ATTENTION",
    "OLLAMA_NUM_PARALLEL",
    "OLLAMA_KEEP_ALIVE",
    "OLLAMA_GPU_OVERHEAD",
    "CUDA_VISIBLE_DEVICES",
)
_SETTING_CAUSES = {
    "OLLAMA_MODELS": "ollama_two_users",
    "OLLAMA_CONTEXT_LENGTH": "context_truncated",
    "CUDA_VISIBLE_DEVICES": "visible_devices",
}
_GIB = 2**30


@frozen
class Remark:
    """One thing about a server that may surprise its user. `cause`: a code of the cause list, None if none fits."""

    cause: str | None
    seen: str
    remedy: str = ""

    @property
    def text(self) -> str:
        """Both in one."""
        return f"{self.seen}. {self.remedy}" if self.remedy else self.seen


def refuse_old(server: Server, on_disk: Installation | None, variant: Variant) -> None:
    """Raises MscliError(ENGINE_UNSUPPORTED) when the running server is too old for the variant, with the remedy.

    Asks it whether it can make a model from another. A version that does not say (0.0.0: built from source) is given
    the benefit of the doubt.
    """
    what = f"the running Ollama server ({server.owner})"
    if not Api(server.address.host, server.address.port).derives():
        raise _too_old(what, server.version, "it cannot make a model from another", _renew(server, on_disk))
    if needed := _needed(server.version, variant):
        raise _too_old(what, server.version, _needs(variant, needed), _renew(server, on_disk), needed)


def refuse_old_program(found: Installation, variant: Variant) -> None:
    """The same for the program that would be started, which can be asked nothing yet."""
    if needed := _needed(found.version, variant):
        remedy = "Update it: mscli engines install ollama"
        raise _too_old(str(found.path), found.version, _needs(variant, needed), remedy, needed)


def _needed(version: str | None, variant: Variant) -> str | None:
    """The version that the variant needs, where this one is older."""
    needed, found = OLDEST_FOR.get(variant.source.repository.partition(":")[0]), _known(version)
    return _dotted(needed) if needed and found and found < needed else None


def _needs(variant: Variant, needed: str) -> str:
    return f"{variant.source.repository} needs {needed} or newer"


def _too_old(what: str, version: str | None, why: str, remedy: str, needed: str | None = None) -> MscliError:
    details = {"cause": "version_backend_old", "version": version, "needed": needed}
    return MscliError(Code.ENGINE_UNSUPPORTED, f"{what} is {version}; {why}", remedy, details)


def warnings(server: Server, on_disk: Installation | None, model: Model, env: Mapping[str, str]) -> tuple[str, ...]:
    """Everything about an adopted server that may surprise this user. `env`: the shell's environment."""
    return tuple(each.text for each in (*remarks(server, on_disk, model, env), *_promise_remarks(server)))


def remarks(
    server: Server, on_disk: Installation | None, model: Model | None, env: Mapping[str, str]
) -> tuple[Remark, ...]:
    """The same with the cause of each apart from its remedy. `model` None: no model in particular is to be run."""
    found = [
        *_version_remarks(server, on_disk, model),
        *_address_remarks(server, env),
        *_twin_remarks(server, on_disk),
        *_setting_remarks(server, env),
    ]
    return tuple(found)


def settings_note(server: Server, plan: Plan) -> str | None:
    """In words, where the server's own settings will make the model larger than planned; None if they fit or are
    unknown."""
    if server.env is None:
        return None
    differing = []
    kv_type = server.env.get("OLLAMA_KV_CACHE_TYPE") or "f16"
    if kv_type != plan.kv_type:
        differing.append(f"OLLAMA_KV_CACHE_TYPE is {kv_type} (planned: {plan.kv_type})")
    users = server.env.get("OLLAMA_NUM_PARALLEL")
    if users and users != str(plan.users):
        differing.append(f"OLLAMA_NUM_PARALLEL is {users} (planned: {plan.users})")
    if not differing:
        return None
    takes = f"; its KV cache is for {users} times the context" if users and users != str(plan.users) else ""
    return f"in the server's environment {' and '.join(differing)}{takes}: {_how_to_set(server)}"


def reserves_for_images(api: Api, version: str | None) -> bool:
    """Whether the server runs models by the engine of before LLAMA_SERVER. Asks it which models it has; its version
    counts only where it has none."""
    try:
        told = api.lists_abilities()
    except Refusal:
        told = None
    return told is False or (told is None and (_known(version) or LLAMA_SERVER) < LLAMA_SERVER)


def cpu_reason(plan: Plan, model: Model, reserves: bool, share: float | None, before: Sequence[Device]) -> str:
    """Why part of the model is on the CPU although it was planned on GPUs, and what to do. `reserves`: memory for
    images; `before`: the GPUs as they were before the load."""
    reasons = []
    if reserves and model.architecture.vision:
        reasons.append(
            "this version of Ollama reserves 8.8 GiB of GPU memory for images, sent or not: upgrade to "
            f"{_dotted(LLAMA_SERVER)} or newer, or use a text-only profile"
        )
    holders = [
        f"{_holder(holder)} on GPU {device.gpu}" for device in _planned(plan, before) for holder in device.holders
    ]
    if holders:
        reasons.append(f"GPU memory was held by {', '.join(holders)}: stop it, or plan again with what is free")
    if not reasons and share == 0:
        reasons.append(
            "the server uses no GPU: check its log (`journalctl -u ollama`) for a driver problem, "
            "CUDA_VISIBLE_DEVICES in its environment, and --gpus all if it is a container"
        )
    return "; ".join(reasons) or "the server found less free GPU memory than planned: `mscli plan`, `ollama ps`"


def _version_remarks(server: Server, on_disk: Installation | None, model: Model | None) -> Iterator[Remark]:
    api = Api(server.address.host, server.address.port)
    if model and model.architecture.vision and reserves_for_images(api, server.version):
        yield Remark(
            "cpu_fallback",
            f"Ollama {server.version} reserves 8.8 GiB of GPU memory for images, sent or not; on a 24 GB card part of "
            f"the model then runs on the CPU. {_dotted(LLAMA_SERVER)} and later do not",
            _renew(server, on_disk),
        )
    if not on_disk or not _same(server, on_disk) or on_disk.version in (None, server.version):
        return
    seen = f"the running server is {server.version}, {on_disk.path} is {on_disk.version}"
    if _newer(server, on_disk):
        yield Remark("version_backend_old", seen, _renew(server, on_disk))
    else:
        yield Remark(None, f"{seen}: update that program")


def _address_remarks(server: Server, env: Mapping[str, str]) -> Iterator[Remark]:
    asked, place = address(env.get("OLLAMA_HOST", "")), server.address
    if not server.local:
        yield Remark(None, f"{server.owner}: the plan is made for the GPUs of this machine")
    elif (asked.host, asked.port) != (place.host, place.port):
        yield Remark(
            "ollama_not_running",
            f"clients in this shell look for Ollama at {asked.host}:{asked.port}, where none answers; it listens at "
            f"{place.host}:{place.port} ({server.owner})",
            f"For them: export OLLAMA_HOST={place.host}:{place.port}",
        )


def _twin_remarks(server: Server, on_disk: Installation | None) -> Iterator[Remark]:
    """Two installations, or two users with a models folder each."""
    if on_disk and on_disk.kind == "program" and not _same(server, on_disk):
        seen = f"two installations of Ollama: the server runs {server.program}, this shell finds {on_disk.path}"
        yield Remark("ollama_two_users", seen)
    own = Path.home() / ".ollama" / "models"
    if server.models and server.models != own and _has_models(own):
        yield Remark(
            "ollama_two_users",
            f"two models folders: the server's is {server.models} (user {server.user}); models in {own} is not used",
        )


def _promise_remarks(server: Server) -> Iterator[Remark]:
    """What mscli promises of a server of its own and cannot promise of this one."""
    keeps = (server.env or {}).get("OLLAMA_KEEP_ALIVE", "")
    if keeps.startswith("-"):
        return
    after = f"after {keeps or '5m'} without a request" if server.env is not None else "after its own OLLAMA_KEEP_ALIVE"
    yield Remark(
        None,
        f"this server unloads a model {after}, once another client has loaded it again",
        f"OLLAMA_KEEP_ALIVE=-1 keeps it. {_how_to_set(server)} Or leave out --adopt.",
    )


def _setting_remarks(server: Server, env: Mapping[str, str]) -> Iterator[Remark]:
    """What is set in the shell, where only clients see it, and is something else in the server."""
    if server.env is None:
        return
    for name in _SERVER_SETTINGS:
        asked, has = env.get(name), server.env.get(name)
        if asked and asked != has:
            yield Remark(
                _SETTING_CAUSES.get(name),
                f"{name}={asked} is set in this shell; the server does not see it, it has {has or 'the default'}",
                _how_to_set(server),
            )


def _renew(server: Server, on_disk: Installation | None) -> str:
    """How to get a newer server running: restarted, where a newer one is installed already, else upgraded first."""
    if server.container:
        return "Pull a newer image and recreate the container: docker pull ollama/ollama"
    restart = "sudo systemctl restart ollama" if server.service else "stop it and start it again"
    if on_disk and _newer(server, on_disk):
        return f"Restart it: {on_disk.version} is installed already ({restart})."
    return f"Install a newer Ollama (https://ollama.com/download), then restart the server ({restart})."


def _newer(server: Server, on_disk: Installation) -> bool:
    """Whether a newer version than the one that runs lies on the disk: it was not restarted after an upgrade."""
    return _same(server, on_disk) and (_known(on_disk.version) or ()) > (_known(server.version) or ())


def _same(server: Server, on_disk: Installation) -> bool:
    """Whether the server runs from the installation that was found, as far as can be told.

    A process of another name (a wrapper's, as on some distributions) tells nothing; mscli's own copy is nobody else's.
    """
    program = server.program
    if program is None or program.name != "ollama":
        return on_disk.kind == "program"
    return program.parent == on_disk.path.resolve().parent


def _how_to_set(server: Server) -> str:
    if server.service:
        return (
            "Set it with `sudo systemctl edit ollama` (Environment=NAME=VALUE), then `sudo systemctl restart ollama`."
        )
    return "Set it where the server is started, and restart it."


def _known(version: str | None) -> tuple[int, ...] | None:
    """The version as numbers, None where it says nothing."""
    from mscli.planning.request import parse_version  # the planner is not needed where servers are only stopped

    found = parse_version(version)
    return found if found and any(found) else None


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _planned(plan: Plan, devices: Sequence[Device]) -> Iterator[Device]:
    return (device for device in devices if device.uuid in plan.devices)


def _holder(holder: Holder) -> str:
    size = f" with {holder.used_bytes / _GIB:.1f} GiB" if holder.used_bytes is not None else ""
    return f"PID {holder.pid}{f' ({holder.command})' if holder.command else ''}{size}"


def _has_models(folder: Path) -> bool:
    try:
        return any((folder / "manifests").rglob("*"))
    except OSError:
        return False
