"""What an Ollama server took for a model: by its log, and by what it says itself once the model is loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from mscli.catalog.model import Model
from mscli.engines.engine import Observed
from mscli.engines.llamacpp.engine import LlamaCpp
from mscli.engines.ollama.api import Api, Refusal
from mscli.engines.ollama.warnings import cpu_reason, reserves_for_images
from mscli.inventory.inventory import Device
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
