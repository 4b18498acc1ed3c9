"""CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER, read as CUDA reads them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mscli.inventory.detect import Selection, select
from mscli.inventory.inventory import Gpu, Mig, MigInstance, Problem

TAIL = "5d1c07-4b8e-9f23-a6d0-5e7c3b1f0a42"


def _gpu(index: int, name: str = "NVIDIA GeForce RTX 4090", first: str = "") -> Gpu:
    uuid = f"GPU-{first or f'{index:02x}'}{TAIL}"
    readings = (24 * 2**30, 0, 24 * 2**30, "8.9", 0, 40, 20.0, 450.0)
    return Gpu(index, uuid, name, None, *readings, False, Mig("off", ()), (), (), True)


def _cut(index: int, count: int) -> Gpu:
    """A GPU in MIG mode with `count` instances."""
    parts = [
        MigInstance(i, f"MIG-{index:02x}{i:02x}41be-7c0d", "MIG 1g.10gb", 0, 0, 0, (), 7 + i, 0) for i in range(count)
    ]
    return replace(_gpu(index), mig=Mig("on", tuple(parts)))


def _lost(index: int) -> Gpu:
    return replace(_gpu(index, "unknown"), uuid="", problems=(Problem("handle", "GPU_IS_LOST", "the GPU is lost"),))


def _shown(selection: Selection) -> list[int | tuple[int, int]]:
    """Indices of whole GPUs, and (GPU, instance) of MIG instances."""
    return [(slot.gpu.index, slot.instance.index) if slot.instance else slot.gpu.index for slot in selection.slots]


def _codes(selection: Selection) -> list[str]:
    return [problem.code for problem in selection.problems]


FOUR = [_gpu(index) for index in range(4)]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, [0, 1, 2, 3]),
        ("", []),
        (" ", []),
        ("-1", []),
        ("0", [0]),
        ("2,1", [2, 1]),
        ("0,2,-1,1", [0, 2]),
        ("0, 1, 2, -1, 3", [0, 1, 2]),
        ("0,1,9,2", [0, 1]),
        ("9", []),
        ("2, +3, -0, 1", [2, 3, 0, 1]),
        ("1gpu2,2ampere", [1, 2]),
        ("one,two,3", []),
        ("3,2,two,1", [3, 2]),
        ("0,,1", [0]),
        ("NoDevFiles", []),
        ("none", []),
        ("0,1,0", []),
        ("0,9,0", []),
        ("0,-1,0", [0]),
        (f"GPU-02{TAIL}", [2]),
        ("GPU-02", [2]),
        ("GPU-03,GPU-00", [3, 0]),
        ("GPU-0", []),
        ("GPU-01,GPU-0,GPU-02", [1]),
        ("GPU-01,GPU-ff,GPU-02", [1]),
        ("GPU-01,GPU-015d", []),
        ("GPU-01,GPU-01", []),
        ("GPU-01,2", [1]),
        ("0,GPU-01", [0]),
        ("gpu-01", []),
        ("MIG-01", []),
    ],
)
def test_devices_shown(value: str | None, shown: list[int]) -> None:
    assert _shown(select(value, None, FOUR)) == shown


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("0,,1", "invalid_entry"),
        ("0,9", "invalid_entry"),
        ("GPU-0", "invalid_entry"),
        ("0,x", "invalid_entry"),
        ("1,1", "duplicate"),
    ],
)
def test_a_list_that_is_cut_short_is_told(value: str, code: str) -> None:
    assert _codes(select(value, None, FOUR)) == [code]


@pytest.mark.parametrize("value", [None, "", "-1", "0,1", "0,-1,2", "GPU-01"])
def test_a_list_that_means_what_it_says_is_not_remarked_on(value: str | None) -> None:
    assert _codes(select(value, None, FOUR)) == []


MIXED = [_gpu(0, "NVIDIA GeForce RTX 3060"), _gpu(1)]


def test_an_index_among_unlike_gpus_is_ambiguous() -> None:
    selection = select("0", None, MIXED)
    assert (_shown(selection), _codes(selection)) == ([0], ["ambiguous_order"])
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in selection.problems[0].message


def test_an_unknown_order_is_cudas_default() -> None:
    assert _codes(select("0", "FASTEST_FIRST", MIXED)) == ["ambiguous_order"]


@pytest.mark.parametrize(
    ("value", "order", "gpus"),
    [("0", "PCI_BUS_ID", MIXED), ("GPU-00", None, MIXED), ("0", None, FOUR), (None, None, MIXED)],
)
def test_pci_order_uuids_and_like_gpus_are_not(value: str | None, order: str | None, gpus: list[Gpu]) -> None:
    assert _codes(select(value, order, gpus)) == []


WITH_MIG = [_cut(0, 3), _gpu(1), _cut(2, 0)]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, [1, (0, 0), (0, 1), (0, 2)]),
        ("0", [1]),
        ("1", [(0, 0)]),
        ("2", []),
        ("GPU-00", [(0, 0)]),
        ("GPU-02", []),
        ("MIG-0001", [(0, 1)]),
        ("MIG-000141be-7c0d", [(0, 1)]),
        ("MIG-00", []),
        ("MIG-0002,MIG-0000", [(0, 2), (0, 0)]),
        (f"MIG-GPU-00{TAIL}/8/0", [(0, 1)]),
        (f"MIG-GPU-00{TAIL}/8/1", []),
        ("MIG-0001,MIG-0001", []),
        ("MIG-0001,0", [(0, 1)]),
    ],
)
def test_mig_instances_shown(value: str | None, shown: list[object]) -> None:
    assert _shown(select(value, None, WITH_MIG)) == shown


def test_a_process_uses_one_instance_only() -> None:
    assert _codes(select("MIG-0002,MIG-0000", None, WITH_MIG)) == ["one_instance"]


def test_a_lost_gpu_keeps_its_index_and_ends_the_list() -> None:
    gpus = [_gpu(0), _lost(1), _gpu(2)]
    assert _shown(select(None, None, gpus)) == [0, 2]
    assert _shown(select("2", None, gpus)) == [2]
    assert _shown(select("0,1,2", None, gpus)) == [0]


def test_a_lost_gpu_makes_no_order_ambiguous() -> None:
    assert _codes(select("2", None, [_gpu(0), _lost(1), _gpu(2)])) == []


def test_without_gpus_the_list_is_not_remarked_on() -> None:
    assert select("0,1", None, []) == Selection((), ())


def test_a_gpu_without_a_uuid_cannot_be_named_safely() -> None:
    assert _shown(select(None, None, [replace(_gpu(0), uuid=""), _gpu(1)])) == [1]


@given(st.lists(st.integers(0, 3), unique=True))
def test_distinct_indices_are_shown_in_their_order(indices: list[int]) -> None:
    assert _shown(select(",".join(map(str, indices)), None, FOUR)) == indices


@given(st.lists(st.integers(0, 3), unique=True), st.integers(4, 40))
def test_a_full_uuid_its_prefix_and_its_index_mean_the_same(indices: list[int], length: int) -> None:
    by_uuid = ",".join(FOUR[index].uuid[: max(length, 6)] for index in indices)
    assert _shown(select(by_uuid, None, FOUR)) == indices


@given(st.text(alphabet="0123456789-+, GPUMIGabcdef/x", max_size=40), st.sampled_from([None, "PCI_BUS_ID"]))
def test_any_text_is_a_list_of_distinct_devices(value: str, order: str | None) -> None:
    shown = _shown(select(value, order, WITH_MIG + FOUR[3:]))
    assert len(set(shown)) == len(shown)


@given(st.lists(st.integers(-2, 6), max_size=6), st.lists(st.integers(-2, 6), max_size=3))
def test_what_follows_an_end_changes_nothing(entries: list[int], after: list[int]) -> None:
    head = ",".join(map(str, [*entries, -1]))
    assert _shown(select(head, None, FOUR)) == _shown(select(",".join([head, *map(str, after)]), None, FOUR))
