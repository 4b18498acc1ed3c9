from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from mscli.catalog.gpus import GpuFacts, by_clocks, find_gpu, load_gpus
from mscli.errors import Code, MscliError

MIB = 1 << 20


@pytest.fixture(scope="module")
def cards(shipped: Path) -> Mapping[str, GpuFacts]:
    return load_gpus(shipped)


def test_a_card_has_the_figures_of_its_data_sheet(cards: Mapping[str, GpuFacts]) -> None:
    card = cards["NVIDIA GeForce RTX 4090"]
    assert (card.compute_capability, card.memory_total_bytes) == ("8.9", 24564 * MIB)
    assert (card.bandwidth_gb_s, card.tensor_tflops_fp16_dense) == (1008, 165.2)
    assert (card.bf16, card.fp8, card.fp4, card.nvlink) == (True, True, False, False)


@pytest.mark.parametrize(
    ("name", "capability", "nvlink"),
    [
        ("Tesla V100-SXM2-16GB", "7.0", True),
        ("Tesla V100-SXM2-32GB", "7.0", True),
        ("Tesla V100-PCIE-16GB", "7.0", False),
        ("NVIDIA H100 80GB HBM3", "9.0", True),
        ("NVIDIA GB10", "12.1", False),
    ],
)
def test_cards_by_exact_name(cards: Mapping[str, GpuFacts], name: str, capability: str, nvlink: bool) -> None:
    assert (cards[name].compute_capability, cards[name].nvlink) == (capability, nvlink)


@pytest.mark.parametrize(
    ("name", "mib", "found"),
    [
        ("NVIDIA GeForce RTX 3060", 12288, "NVIDIA GeForce RTX 3060"),
        ("NVIDIA GeForce RTX 3060", 8192, None),
        ("NVIDIA GeForce RTX 3080", 12288, "NVIDIA GeForce RTX 3080 (12GB)"),
        ("NVIDIA GeForce RTX 3080", 10240, "NVIDIA GeForce RTX 3080 (10GB)"),
        ("NVIDIA GeForce RTX 3080", 20480, None),
        ("NVIDIA GeForce RTX 4090", 49140, None),
        ("NVIDIA H100 PCIe", 81559, "NVIDIA H100 PCIe"),
        ("NVIDIA H100", 81559, None),
        ("Tesla V100-SXM2-16GB", 16160, "Tesla V100-SXM2-16GB"),
        ("NVIDIA GB10", None, "NVIDIA GB10"),
        ("NVIDIA GeForce RTX 4090", None, None),
    ],
)
def test_the_memory_decides_between_namesakes_and_near_misses_are_unknown(
    cards: Mapping[str, GpuFacts], name: str, mib: int | None, found: str | None
) -> None:
    card = find_gpu(cards, name, None if mib is None else mib * MIB)
    assert (card.name if card else None) == found


@pytest.mark.parametrize(
    ("name", "bus_bits", "memory_mhz", "cores", "sm_mhz"),
    [
        ("Tesla V100-SXM2-32GB", 4096, 877, 5120, 1530),
        ("Tesla T4", 256, 5001, 2560, 1590),
        ("NVIDIA A100-SXM4-80GB", 5120, 1593, 6912, 1410),
        ("NVIDIA GeForce RTX 3090", 384, 9751, 10496, 2100),
        ("NVIDIA RTX A6000", 384, 8001, 10752, 2100),
        ("NVIDIA GeForce RTX 4090", 384, 10501, 16384, 3105),
        ("NVIDIA H100 80GB HBM3", 5120, 2619, 16896, 1980),
        ("NVIDIA GeForce RTX 5090", 512, 14001, 21760, 3090),
    ],
)
def test_what_the_clocks_say_is_what_the_data_sheet_says(
    cards: Mapping[str, GpuFacts], name: str, bus_bits: int, memory_mhz: int, cores: int, sm_mhz: int
) -> None:
    listed = cards[name]
    total = listed.memory_total_bytes or 0
    told = by_clocks(name, total, listed.compute_capability, bus_bits, memory_mhz, cores, sm_mhz)
    assert told.bandwidth_gb_s == pytest.approx(listed.bandwidth_gb_s, rel=0.02)
    assert told.tensor_tflops_fp16_dense == pytest.approx(listed.tensor_tflops_fp16_dense, rel=0.2)
    assert (told.bf16, told.fp8, told.fp4) == (listed.bf16, listed.fp8, listed.fp4)


def test_without_tensor_cores_the_prompts_rate_is_unknown() -> None:
    card = by_clocks("Tesla P4", 8 * 2**30, "6.1", 256, 3003, 2560, 1531)
    assert (round(card.bandwidth_gb_s), card.tensor_tflops_fp16_dense) == (192, None)


def test_number_formats_follow_the_compute_capability(cards: Mapping[str, GpuFacts]) -> None:
    for card in cards.values():
        capability = tuple(int(part) for part in card.compute_capability.split("."))
        expected = (capability >= (8, 0), capability >= (8, 9), capability >= (10, 0))
        assert (card.bf16, card.fp8, card.fp4) == expected, card.name


def test_memory_and_throughput_are_plausible(cards: Mapping[str, GpuFacts]) -> None:
    for card in cards.values():
        if card.memory_total_bytes is not None:
            assert 0.9 < card.memory_total_bytes / (card.marketed_gb * 2**30) < 1.05, card.name
        if card.tensor_tflops_fp16_dense is not None:
            assert 0.03 < card.tensor_tflops_fp16_dense / card.bandwidth_gb_s < 0.5, card.name


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [("320", "many", "could not convert string to float"), (",no,65", ",maybe,65", "expected yes or no, got 'maybe'")],
)
def test_a_damaged_row_is_named(shipped: Path, tmp_path: Path, old: str, new: str, says: str) -> None:
    text = (shipped / "gpus.csv").read_text()
    row = next(number for number, line in enumerate(text.splitlines(), 1) if line.startswith("Tesla T4"))
    (tmp_path / "gpus.csv").write_text(
        text.replace(old, new, 1) if old == ",no,65" else text.replace(f",{old},", f",{new},", 1)
    )
    with pytest.raises(MscliError, match=rf"gpus\.csv:{row}: damaged row: {says}") as caught:
        load_gpus(tmp_path)
    assert caught.value.code == Code.FILE


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(MscliError, match=r"gpus\.csv cannot be read: No such file or directory"):
        load_gpus(tmp_path)
