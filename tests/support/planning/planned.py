"""The shipped catalogue and machines that are not here, for planning tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from mscli.catalog.gpus import GpuFacts, load_gpus
from mscli.catalog.load import Catalog, load_catalog
from mscli.catalog.model import Model
from mscli.catalog.profile import Profile
from mscli.inventory.inventory import Device, Holder, Inventory, Link
from mscli.paths import shipped_profiles
from mscli.planning.described_machine import machine
from mscli.planning.known import Known
from mscli.planning.make import choose, make
from mscli.planning.plan import GIB, Choice, Claim, NoFit, Overrides, Plan

DESKTOP = 3 * GIB // 2


@lru_cache
def catalog() -> Catalog:
    """What ships."""
    return load_catalog(shipped_profiles(), Path("/nonexistent"))


@lru_cache
def facts() -> Mapping[str, GpuFacts]:
    """The cards that ship."""
    return load_gpus(shipped_profiles())


def pair(name: str) -> tuple[Profile, Model]:
    """A shipped profile with its model."""
    profile = catalog().profile(name)
    return profile, catalog().models[profile.model]


def on(cards: str, free: int | None = None, ram: int | None = None, used: int = 0) -> Inventory:
    """A machine with these cards; `free` bytes on each, `used` bytes on the first."""
    return machine(cards, facts(), free, ram, used)


def plan(name: str, where: Inventory | str, overrides: Overrides | None = None, *claims: Claim, **more: object) -> Plan:
    """The plan of a shipped profile. Fails with the reasons when there is none."""
    outcome = verdict(name, where, overrides, *claims, **more)
    assert isinstance(outcome, Plan), f"{name} does not fit: {outcome.reasons}"
    return outcome


def refusal(
    name: str, where: Inventory | str, overrides: Overrides | None = None, *claims: Claim, **more: object
) -> NoFit:
    """The refusal of a shipped profile. Fails with the plan when there is one."""
    outcome = verdict(name, where, overrides, *claims, **more)
    assert isinstance(outcome, NoFit), f"{name} fits: {outcome}"
    return outcome


def verdict(
    name: str, where: Inventory | str, overrides: Overrides | None = None, *claims: Claim, **more: object
) -> Plan | NoFit:
    """What the planner says of a shipped profile."""
    seen = on(where) if isinstance(where, str) else where
    return make(*pair(name), Known(seen, claims, facts(), **more), overrides)  # type: ignore[arg-type]


def choice(where: Inventory | str, overrides: Overrides | None = None) -> Choice:
    """What is chosen from everything that ships."""
    seen = on(where) if isinstance(where, str) else where
    return choose([pair(name) for name in catalog().profiles], Known(seen, facts=facts()), overrides)


def held(where: Inventory, index: int, *holders: Holder) -> Inventory:
    """The machine with these processes on one GPU, their bytes no longer free."""
    used = sum(holder.used_bytes or 0 for holder in holders)
    return changed(where, index, lambda item: replace(item, free_bytes=(item.free_bytes or 0) - used, holders=holders))


def holder(pid: int, gib: float | None, command: str = "python train.py", container: str | None = None) -> Holder:
    """A process that holds `gib` GiB (None: the driver does not tell)."""
    return Holder(pid, "ada", command, container, None if gib is None else round(gib * GIB))


def changed(where: Inventory, index: int, change: object) -> Inventory:
    """The machine with one device changed."""
    devices = [change(item) if item.gpu == index else item for item in where.devices]  # type: ignore[operator]
    return replace(where, devices=tuple(devices))


def linked(where: Inventory, *pairs: tuple[int, int]) -> Inventory:
    """The machine with NVLink between these pairs, and the host between all others."""
    indices = [device.gpu for device in where.devices]
    links = [
        Link(a, b, 4 if (a, b) in pairs else 0, "internal" if (a, b) in pairs else "node", True)
        for a in indices for b in indices if a < b
    ]  # fmt: skip
    return replace(where, links=tuple(links))


def device(where: Inventory, index: int) -> Device:
    """One device."""
    return next(item for item in where.devices if item.gpu == index)
