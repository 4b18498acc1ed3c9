"""What data sheets say about a GPU that NVML does not: memory bandwidth, tensor throughput, number formats."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from mscli.errors import Code, MscliError
from mscli.frozen import frozen

_MIB = 1 << 20
# A driver shows 1 to 1.5 % less than another for the same card; the next size of a card is at least 20 % away.
_SAME_SIZE = 0.03

# Dense FP16 operations per CUDA core and clock by compute capability, accumulated in FP32: the data sheets' throughput
# over cores and boost clock. GeForce does half, and boosts to about four fifths of the highest clock that NVML tells.
_OPERATIONS = {"7.0": 16, "7.5": 16, "8.0": 32, "8.6": 8, "8.9": 8, "9.0": 32, "10.0": 64, "12.0": 8}
_GEFORCE = 0.5 * 0.8


@frozen
class GpuFacts:
    """One card. `name` is NVML's, with the size in brackets where two sizes share a name.

    `memory_total_bytes`: what NVML shows (None: it shows none).
    `bandwidth_gb_s`: memory bandwidth in 1e9 bytes per second. `tensor_tflops_fp16_dense`: FP16 (from Ampere also BF16)
    tensor throughput without sparsity, accumulated in FP32, in 1e12 operations per second; None: no data sheet says.
    """

    name: str
    architecture: str
    compute_capability: str
    marketed_gb: int
    memory_total_bytes: int | None
    bandwidth_gb_s: float
    nvlink: bool
    bf16: bool
    fp8: bool
    fp4: bool
    tensor_tflops_fp16_dense: float | None
    note: str


def load_gpus(shipped: Path) -> Mapping[str, GpuFacts]:
    """The cards of `shipped`/gpus.csv by name. Raises MscliError(FILE) when it cannot be read or a row is damaged."""
    import csv

    path = shipped / "gpus.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            cards = [_facts(path, rows.line_num, row) for row in rows]
    except OSError as error:
        raise MscliError(Code.FILE, f"{path} cannot be read: {error.strerror}", "reinstall mscli") from error
    return {card.name: card for card in cards}


def find_gpu(cards: Mapping[str, GpuFacts], name: str, memory_total_bytes: int | None) -> GpuFacts | None:
    """The card that NVML calls `name` and shows `memory_total_bytes` for, or None rather than a near miss.

    The size decides between namesakes (RTX 3060 of 8 and 12 GB have different memory buses) and rejects rebuilt cards.
    """
    namesakes = [card for card in cards.values() if re.sub(r" \(\d+GB\)$", "", card.name) == name]
    return next((card for card in namesakes if _same_size(card.memory_total_bytes, memory_total_bytes)), None)


def by_clocks(
    name: str, memory_total_bytes: int, capability: str, bus_bits: int, memory_mhz: int, cores: int, sm_mhz: int
) -> GpuFacts:
    """A card that is not listed, by what NVML tells of it. Its bus takes two bits per line and clock: NVML's memory
    clock of a GDDR6X or HBM card is half the data rate."""
    level = float(capability)
    bandwidth = bus_bits / 8 * 2 * memory_mhz / 1e3
    per_core = _OPERATIONS.get(capability, 0) * (_GEFORCE if "GeForce" in name else 1)
    return GpuFacts(
        name, "unknown", capability, round(memory_total_bytes / 2**30), memory_total_bytes, bandwidth, False,
        level >= 8.0, level >= 8.9, level >= 10.0, per_core * cores * sm_mhz / 1e6 or None, "by its clocks",
    )  # fmt: skip


def _same_size(expected: int | None, seen: int | None) -> bool:
    if expected is None or seen is None:
        return expected is seen
    return abs(seen - expected) <= _SAME_SIZE * expected


def _facts(path: Path, line: int, row: Mapping[str, str]) -> GpuFacts:
    try:
        return GpuFacts(
            name=row["nvml_name"],
            architecture=row["arch"],
            compute_capability=row["compute_capability"],
            marketed_gb=int(row["marketed_gb"]),
            memory_total_bytes=int(row["nvml_total_mib"]) * _MIB if row["nvml_total_mib"] else None,
            bandwidth_gb_s=float(row["mem_bandwidth_gb_s"]),
            nvlink=_flag(row["nvlink"]),
            bf16=_flag(row["bf16"]),
            fp8=_flag(row["fp8"]),
            fp4=_flag(row["fp4"]),
            tensor_tflops_fp16_dense=float(row["tensor_tflops_fp16_dense"])
            if row["tensor_tflops_fp16_dense"]
            else None,
            note=row["note"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise MscliError(Code.FILE, f"{path}:{line}: damaged row: {error}", "reinstall mscli") from error


def _flag(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError(f"expected yes or no, got '{text}'")
    return text == "yes"
