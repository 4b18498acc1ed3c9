"""`mscli gpus`: what NVML and the kernel say about this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from mscli.cli.options import Json
from mscli.cli.screen import Screen, open_screen

if TYPE_CHECKING:
    from mscli.inventory.inventory import Gpu, Host, Inventory


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("gpus", epilog="Example: mscli gpus --json")(gpus)


def gpus(ctx: typer.Context, json: Json = False) -> None:
    """Show the GPUs, their free memory and who holds the rest, and the host around them."""
    from mscli.inventory.detect import detect
    from mscli.paths import hub_cache

    screen = open_screen(ctx, json)
    inventory = detect(hub_cache())
    if json:
        screen.data(inventory)
        return
    _show_gpus(screen, inventory)
    _show_host(screen, inventory.host)


def _show_gpus(screen: Screen, inventory: Inventory) -> None:
    if inventory.nvml is not None:
        screen.text(f"No GPU can be read: {inventory.nvml.message}")
    else:
        screen.text(f"NVIDIA driver {inventory.driver or 'unknown'}, CUDA {inventory.cuda or 'unknown'}")
    if inventory.visible_devices is not None:
        screen.text(f"CUDA_VISIBLE_DEVICES={inventory.visible_devices!r} is in force")
    if inventory.gpus:
        screen.table(("GPU", "NAME", "CC", "MEMORY", "FREE", "USED", "LOAD", "TEMP", "POWER"), _rows(inventory))
    for gpu in inventory.gpus:
        _show_details(screen, gpu)
    for problem in inventory.problems:
        screen.text(f"  ! {problem.field}: {problem.message}")
    for link in inventory.links:
        how = f"{link.nvlinks} NVLinks" if link.nvlinks else f"PCIe, {link.path}"
        p2p = {True: "peer-to-peer", False: "no peer-to-peer", None: "peer-to-peer unknown"}[link.p2p]
        screen.text(f"  GPU {link.first} - GPU {link.second}: {how}, {p2p}")


def _rows(inventory: Inventory) -> list[tuple[str, ...]]:
    return [_row(gpu) for gpu in inventory.gpus]


def _row(gpu: Gpu) -> tuple[str, ...]:
    from mscli.cli.size import bar, size

    known = gpu.memory_total_bytes and gpu.memory_used_bytes is not None
    share = (gpu.memory_used_bytes or 0) / (gpu.memory_total_bytes or 1)
    return (
        f"{gpu.index}{'' if gpu.visible else ' (hidden)'}",
        gpu.name,
        gpu.compute_capability or "unknown",
        size(gpu.memory_total_bytes),
        size(gpu.memory_free_bytes),
        f"{bar(share, 12)} {share:.0%}" if known else "unknown",
        "unknown" if gpu.utilisation_percent is None else f"{gpu.utilisation_percent} %",
        "unknown" if gpu.temperature_c is None else f"{gpu.temperature_c} C",
        "unknown" if gpu.power_w is None else f"{gpu.power_w:.0f} W",
    )


def _show_details(screen: Screen, gpu: Gpu) -> None:
    from mscli.cli.size import size

    if gpu.unified_memory:
        screen.text(f"  GPU {gpu.index} shares the host's memory")
    for part in gpu.mig.instances:
        free, total = size(part.memory_free_bytes), size(part.memory_total_bytes)
        screen.text(f"  GPU {gpu.index} MIG {part.index} {part.name}: {free} free of {total}  {part.uuid}")
    for holder in gpu.holders:
        where = f" in container {holder.container[:12]}" if holder.container else ""
        who = f"{holder.user or 'unknown user'}: {holder.command or 'unknown command'}"
        screen.text(f"  GPU {gpu.index} held by {holder.pid} {who}{where}: {size(holder.used_bytes)}")
    for problem in gpu.problems:
        screen.text(f"  ! GPU {gpu.index} {problem.field}: {problem.message}")


def _show_host(screen: Screen, host: Host) -> None:
    from mscli.cli.size import size

    ram = f"RAM {size(host.ram_available_bytes)} available of {size(host.ram_total_bytes)}"
    screen.text(f"Host: {host.surroundings}, {host.cpu_model}, {host.cpu_cores} cores, {ram}")
    screen.text(f"Disk for weights: {size(host.disk_free_bytes)} free at {host.disk_path}")
