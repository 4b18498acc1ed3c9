"""How the GPUs reach each other, and what the environment tells NCCL about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mscli.diagnosis.causes import CAUSES
from mscli.doctor.checks.check import Seen, fail, ok, skipped, warn
from mscli.doctor.checks.context import CheckContext
from mscli.inventory.inventory import Gpu, Link
from mscli.inventory.kernel import text_of

# An IOMMU that translates addresses sends transfers between GPUs through the root complex, where they hang or corrupt
# data; in pass-through ("identity") it does not. Source: NVIDIA, NCCL user guide, "PCI Access Control Services".
_TRANSLATED = ("DMA", "DMA-FQ")


def peers(ctx: CheckContext) -> Iterator[Seen]:
    """Peer-to-peer between the cards, and what breaks it although the driver offers it."""
    links = ctx.inventory.links
    if not links:
        yield skipped("there is one GPU, or the driver tells of no pair")
        return
    translated = [link for link in links if link.p2p and not link.nvlinks and _translated(ctx, link)]
    if translated and ctx.env.get("NCCL_P2P_DISABLE") != "1":
        which = ", ".join(f"{link.first}-{link.second}" for link in translated)
        remedy = "Start the kernel with iommu=pt, or switch the IOMMU off; until then NCCL_P2P_DISABLE=1."
        yield warn("p2p", f"an IOMMU stands between GPUs {which}: transfers between them may hang", remedy)
        return
    kinds: dict[str, list[str]] = {}
    for link in links:
        kinds.setdefault(_told(link), []).append(f"{link.first}-{link.second}")
    yield ok("; ".join(f"GPUs {_pairs(pairs)}: {how}" for how, pairs in kinds.items()), *_mixed(ctx))


def _pairs(pairs: list[str]) -> str:
    return ", ".join(pairs) if len(pairs) <= 3 else f"{pairs[0]} and {len(pairs) - 1} more pairs"


def _told(link: Link) -> str:
    how = f"{link.nvlinks} NVLinks" if link.nvlinks else f"PCIe ({link.path})"
    p2p = {True: "peer-to-peer", False: "no peer-to-peer: by way of the host's memory", None: "peer-to-peer unknown"}
    return f"{how}, {p2p[link.p2p]}"


def _mixed(ctx: CheckContext) -> tuple[str, ...]:
    names = sorted({gpu.name for gpu in ctx.inventory.gpus if gpu.name != "unknown"})
    return (f"unlike GPUs: {', '.join(names)}; tensor parallel runs as fast as the smallest",) if len(names) > 1 else ()


def _translated(ctx: CheckContext, link: Link) -> bool:
    pair = (gpu for gpu in ctx.inventory.gpus if gpu.index in (link.first, link.second))
    return any(_iommu(ctx.root, gpu) in _TRANSLATED for gpu in pair)


def _iommu(root: Path, gpu: Gpu) -> str:
    """How the IOMMU treats a GPU (DMA, DMA-FQ, identity); empty without one. NVML writes the domain with 8 digits."""
    address = (gpu.pci_bus_id or "").lower()[4:]
    return text_of(root / "sys/bus/pci/devices" / address / "iommu_group/type").strip() if address else ""


def nccl(ctx: CheckContext) -> Iterator[Seen]:
    """NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME must name an interface that is there."""
    present = _interfaces(ctx.root)
    wrong = [text for name in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME") if (text := _absent(ctx, name, present))]
    told = fail if len(ctx.inventory.gpus) > 1 else warn
    for text in wrong:
        yield told("nccl", text, f"Unset it, or name one of: {', '.join(present)}.")
    if wrong:
        return
    settings = sorted(f"{name}={value}" for name, value in ctx.env.items() if name.startswith("NCCL_"))
    yield ok(f"set for NCCL: {', '.join(settings)}" if settings else "nothing is set for NCCL")


def _interfaces(root: Path) -> list[str]:
    folder = root / "sys/class/net"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def _absent(ctx: CheckContext, variable: str, present: list[str]) -> str | None:
    """NCCL takes a list of prefixes; '=' in front makes them whole names, '^' excludes them. Gloo takes whole names."""
    value = ctx.env.get(variable)
    if not value or not present or value.startswith("^"):
        return None
    whole = value.startswith("=") or variable.startswith("GLOO")
    names = [name.partition(":")[0] for name in value.lstrip("=").split(",") if name]
    if any(there == name or (not whole and there.startswith(name)) for name in names for there in present):
        return None
    return f"{variable}={value} names no network interface of this machine ({CAUSES['nccl'][0]})"
