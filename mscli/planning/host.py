"""Plans that live in host memory: whole ones on the CPU, and what offloading adds beside GPUs."""

from __future__ import annotations

from collections.abc import Sequence

from mscli.inventory.inventory import Inventory
from mscli.planning.figures import GIB, gib, tokens
from mscli.planning.memory.footprint import Configuration, Room
from mscli.planning.plan import SAFE, TIGHT, NoFit, Plan
from mscli.planning.request import Request
from mscli.planning.search import AMPLE, SAFE_SHARE, TIGHT_SHARE, safest


def _margin(verdict: str, ram_bytes: int) -> int:
    share = SAFE_SHARE if verdict == SAFE else TIGHT_SHARE
    return min(int(share * ram_bytes), AMPLE)


def plan_on_cpu(request: Request, inventory: Inventory, remarks: tuple[str, ...]) -> Plan | NoFit:
    """The largest useful context in available RAM."""
    config = safest(request, request.kv_types, lambda config: _slack(request, config, inventory, SAFE))
    if config:
        return _plan(request, config, inventory, SAFE, remarks)
    for kind in request.kv_types:
        config = request.configuration(request.floor, kind)
        if _slack(request, config, inventory, TIGHT) >= 0:
            return _plan(request, config, inventory, TIGHT, remarks)
    return _refuse(request, inventory)


def _slack(request: Request, config: Configuration, inventory: Inventory, verdict: str) -> int:
    host = inventory.host
    return (
        host.ram_available_bytes - _margin(verdict, host.ram_total_bytes) - request.memory.host(config, ()).needed_bytes
    )


def _plan(
    request: Request, config: Configuration, inventory: Inventory, verdict: str, remarks: tuple[str, ...]
) -> Plan:
    needed = request.memory.host(config, ()).needed_bytes
    because = (
        f"runs on the CPU, takes {gib(needed)} of the {gib(inventory.host.ram_available_bytes)} of free host memory"
    )
    wanted = request.ceiling
    steps = (f"context {tokens(config.context)} instead of {wanted:,}: host memory ends it",)
    return Plan(
        profile=request.profile.name, engine=request.profile.engine, model=request.model.name,
        variant=request.variant.name, verdict=verdict, reasons=(because, *request.notes, *remarks),
        context=config.context, kv_type=config.kv_type, tensor_parallel=1, images=request.images, users=request.users,
        gpus=(), devices=(), memory=(), layers_on_gpu=0, host_bytes=needed,
        settings=request.memory.settings(config, (), ()), steps=steps if config.context < wanted else (),
    )  # fmt: skip


def _refuse(request: Request, inventory: Inventory) -> NoFit:
    smallest = min(
        request.memory.host(request.configuration(request.floor, kind), ()).needed_bytes for kind in request.kv_types
    )
    room = inventory.host.ram_available_bytes - _margin(TIGHT, inventory.host.ram_total_bytes)
    reason = (
        f"{gib(smallest)} of host memory are needed at {tokens(request.floor)}, "
        f"{gib(inventory.host.ram_available_bytes)} are available: {gib(smallest - room)} missing"
    )
    profile = request.profile
    return NoFit(
        profile.name, profile.engine, request.model.name, request.variant.name, (reason,), smallest - room,
        cause="host_ram",
    )  # fmt: skip


def ram_shortage(request: Request, config: Configuration, rooms: Sequence[Room], inventory: Inventory) -> str | None:
    """Why the layers left in host memory do not fit there; None when they do."""
    if not config.host_layers:
        return None
    needed = request.memory.host(config, rooms).needed_bytes
    available = inventory.host.ram_available_bytes
    if needed + GIB <= available:
        return None
    short = gib(needed + GIB - available)
    return f"offloading needs {gib(needed)} of host memory and 1 GiB beside, of {gib(available)}: {short} missing"
