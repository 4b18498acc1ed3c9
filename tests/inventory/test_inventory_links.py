"""NVLink lanes between two GPUs, from what each says of its own lanes."""

from __future__ import annotations

import pytest

from mscli.inventory.inventory import Gpu, Mig
from mscli.inventory.nvml import Card, Lane, lanes_between

ADDRESSES = {"01", "11"}
BRIDGE, SWITCH = "11", "F1"


def _card(address: str, *lanes: Lane) -> Card:
    nothing = (None,) * 8
    gpu = Gpu(0, "GPU-0", "a GPU", address, *nothing, False, Mig("unsupported", ()), (), (), True)
    return Card(gpu, object(), lanes)


@pytest.mark.parametrize(
    ("lanes", "others", "expected"),
    [
        ([], [], 0),
        ([Lane(BRIDGE, False)] * 4, [Lane("01", False)] * 4, 4),
        ([Lane(SWITCH, True)] * 18, [Lane(SWITCH, True)] * 18, 18),
        ([Lane(SWITCH, True)] * 18, [Lane(SWITCH, True)] * 12, 12),
        ([Lane(SWITCH, True)] * 18, [], 0),
        ([Lane(SWITCH, None)] * 12, [Lane("F2", None)] * 12, 12),
        ([Lane(BRIDGE, None)] * 2, [Lane("01", None)] * 2, 2),
        ([Lane("77", False)] * 4, [Lane("77", False)] * 4, 0),
        ([Lane(None, False)] * 4, [Lane(None, False)] * 4, 0),
    ],
    ids=[
        "none",
        "bridge",
        "switch",
        "switch, some lanes down",
        "one not on the switch",
        "switches an old driver cannot tell",
        "bridge an old driver cannot tell",
        "a third GPU that is hidden from us",
        "far ends unknown",
    ],
)
def test_lanes(lanes: list[Lane], others: list[Lane], expected: int) -> None:
    assert lanes_between(_card("01", *lanes), _card("11", *others), ADDRESSES) == expected
