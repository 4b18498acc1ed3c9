"""How GPUs reach each other: NVLink lanes, the nearest common ancestor on PCIe, and whether peer-to-peer reads work."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from types import ModuleType

from mscli.inventory.card import Card, Lane
from mscli.inventory.fields import Fields
from mscli.inventory.inventory import Link, Problem

_PATHS = {0: "internal", 10: "single-switch", 20: "multiple-switches", 30: "host-bridge", 40: "node", 50: "system"}
# The bindings' own constant for this index is a tuple by mistake (NVML_P2P_CAPS_INDEX_READ = 0,).
_P2P_READ = 0


def read_links(nvml: ModuleType, cards: Sequence[Card]) -> tuple[tuple[Link, ...], tuple[Problem, ...]]:
    """A Link for every pair of GPUs that the driver opened, and what could not be read of them."""
    links, problems = [], []
    opened = [card for card in cards if card.handle is not None]
    addresses = {card.gpu.pci_bus_id for card in opened if card.gpu.pci_bus_id}
    for one, other in combinations(opened, 2):
        first, second = one.gpu.index, other.gpu.index
        pair = Fields(nvml, one.handle, other.handle, prefix=f"links[{first},{second}].")
        ancestor = pair.read("path", nvml.nvmlDeviceGetTopologyCommonAncestor)
        status = pair.read("p2p", lambda a, b: nvml.nvmlDeviceGetP2PStatus(a, b, _P2P_READ))
        p2p = None if status in (None, nvml.NVML_P2P_STATUS_UNKNOWN) else status == nvml.NVML_P2P_STATUS_OK
        path = "unknown" if ancestor is None else _PATHS.get(ancestor, "unknown")
        links.append(Link(first, second, lanes_between(one, other, addresses), path, p2p))
        problems += pair.problems
    return tuple(links), tuple(problems)


def lanes_between(one: Card, other: Card, addresses: set[str]) -> int:
    """Active NVLink lanes from `one` that end at `other`, and those by which both reach switches (the fewer).

    `addresses`: the PCI addresses of all GPUs. A far end of unknown kind that is none of them is taken for a switch:
    drivers that cannot tell the kind are older than bridges to GPUs outside the machine.
    """
    direct = sum(lane.remote == other.gpu.pci_bus_id for lane in one.lanes if lane.remote)
    return direct + min(_to_switch(one.lanes, addresses), _to_switch(other.lanes, addresses))


def _to_switch(lanes: Sequence[Lane], addresses: set[str]) -> int:
    return sum(lane.remote not in addresses if lane.switch is None else lane.switch for lane in lanes)
