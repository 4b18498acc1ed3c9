from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from mscli.catalog.gpus import GpuFacts, find_gpu, load_gpus
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
        ("NVIDIA GeForce RTX 3080", 10240, None),
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
