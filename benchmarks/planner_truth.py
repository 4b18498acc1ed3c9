"""mscli's memory formulas against published measurements, row by row.

    python benchmarks/planner_truth.py

The rows are benchmarks/data/memory_truth.jsonl (numbered from 1). A row is judged on what it states: KV cache to the
last printed digit, weights within 1 %, totals within 5 %, and whether it fitted. Rows that do not state their inputs
are listed with what is missing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from peer_sums import gguf_parser, gib_or_dash, hf_mem, llmfit
from truth_models import LLAMA_70B, UNNAMED_48, gemma_27b, llama_8b, qwen_32b
from truth_verdicts import verdicts
from weight_rules import safetensors_bytes

from mscli.catalog.load import Catalog, load_catalog
from mscli.paths import shipped_profiles
from mscli.planning.devices import Room, cuda_total
from mscli.planning.memory import Configuration, EngineMemory, bytes_per_token, llamacpp, ollama, vllm
from mscli.planning.plan import GIB, MIB, from_gib

DATA = Path(__file__).parent / "data" / "memory_truth.jsonl"
KV, WEIGHTS, TOTAL = "KV cache", "weights", "total"


@dataclass(frozen=True)
class Case:
    """One figure of one row. `slack_bytes`: half of the last digit that was printed. `config`: for the peers' sums."""

    row: int
    kind: str
    what: str
    predicted: int
    measured: int
    slack_bytes: int = 0
    config: Configuration | None = None
    gpus: int = 1

    @property
    def error(self) -> float:
        """Relative error; 0 within the printed digits."""
        off = abs(self.predicted - self.measured)
        return 0.0 if off <= self.slack_bytes else (self.predicted - self.measured) / self.measured


@lru_cache
def rows() -> tuple[Mapping[str, Any], ...]:
    """The published rows."""
    return tuple(json.loads(line) for line in DATA.read_text().splitlines())


def stated(row: int, name: str) -> float:
    """A figure of a row."""
    return float(rows()[row - 1]["measure"][name])


@lru_cache
def catalog() -> Catalog:
    """What ships."""
    return load_catalog(shipped_profiles(), Path("/nonexistent"))


def shipped(name: str, variant_name: str, context: int, kv: str, images: int = 0, **more: Any) -> Configuration:
    """A configuration of a model in the catalogue."""
    found = catalog().models[name]
    return replace(Configuration(found, found.variants[variant_name], context, kv, 1, images), **more)


def room(total_gib: float, index: int = 0, name: str = "", unified: bool = False) -> Room:
    """A card, empty."""
    total = from_gib(total_gib)
    return Room(index, f"GPU-{index}", name, total, cuda_total(total), "8.6", False, (), unified)


def total(engine: EngineMemory, config: Configuration, rooms: Sequence[Room]) -> int:
    """Everything on all GPUs."""
    return sum(one.needed_bytes for one in engine.footprints(config, rooms))


def llama_cpp_cases() -> list[Case]:
    """A 5070 Ti under Windows at full and partial offload, and two P100 at 131,072 tokens."""
    cases = []
    for row, context, host_layers in ((1, 12288, 0), (2, 16384, 3), (3, 32768, 7)):
        config = shipped("devstral-small-2507", "q4_k_m", context, "q8_0", host_layers=host_layers)
        used = round((stated(row, "nvidia_smi_used_MiB") - stated(row, "idle_used_MiB_before")) * MIB)
        predicted = total(llamacpp.MEMORY, config, [room(15.92)])
        cases.append(Case(row, TOTAL, f"used beside idle, {41 - host_layers} of 41 layers", predicted, used, 0, config))
    found = qwen_32b()
    config = Configuration(found, found.variants["q4_k_m"], 131072, "q4_0")
    predicted = total(llamacpp.MEMORY, config, [room(16), room(16, 1)])
    cases.append(Case(4, TOTAL, "peak of both GPUs", predicted, from_gib(stated(4, "peak_vram_GiB_sum")), 0, config, 2))
    return cases


def ollama_cases() -> list[Case]:
    """Logs and estimates of Ollama before 0.30."""
    small = shipped("mistral-small-3.1", "ollama-q4_k_m", 4096, "f16", version=(0, 6, 5))
    text = small.text
    kv = 4096 * bytes_per_token(text, "f16")
    full = small.variant.weights_bytes + kv + ollama.old_graph(small)
    long = replace(small, context=65536)
    q8 = shipped("mistral-small-3.1", "ollama-q8_0", 4096, "f16")
    on_gpus = q8.variant.weights_bytes - q8.variant.host_bytes + q8.variant.projector_bytes
    fa = shipped("mistral-small-3.2", "ollama-q4_k_m", 4096, "q8_0", version=(0, 11, 7))
    two, one = [room(24), room(24, 1)], [room(24)]
    cases = [
        Case(
            5,
            TOTAL,
            "estimate with image graph",
            total(ollama.MEMORY, long, two),
            from_gib(48.0),
            0,
            long,
            2,
        ),
        Case(6, KV, "logged", kv, 640 * MIB),
        Case(6, TOTAL, "estimate without projector", full, from_gib(14.5), 0, small),
        Case(6, "image graph", "logged", ollama.projector_graph(small), from_gib(8.8), from_gib(0.1)),
        Case(8, TOTAL, "ollama ps of 0.11, an estimate", total(ollama.MEMORY, fa, one), 26 * 10**9, 0, fa),
        Case(9, WEIGHTS, "both CUDA buffers", on_gpus, from_gib(23.6), from_gib(0.05)),
        Case(9, WEIGHTS, "CPU buffer: the embedding", q8.variant.host_bytes, 680 * MIB),
        Case(18, KV, "CUDA0 784 + CUDA1 496 MiB", 4096 * bytes_per_token(LLAMA_70B, "f16"), 1280 * MIB),
    ]
    for row, context in ((12, 2048), (13, 4096), (14, 8192), (15, 32768)):
        config = shipped("mistral-small-3.1", "ollama-q8_0", context, "f16", version=(0, 11, 5))
        predicted = total(ollama.MEMORY, config, [room(24), room(31.84, 1)])
        measured = from_gib(stated(row, "memory_allocated_GiB"))
        # 3.2 has the same tensors as 3.1, whose Q8_0 the catalogue holds.
        cases.append(Case(row, TOTAL, "allocated on both GPUs, no flash attention", predicted, measured, 0, config, 2))
    return cases


def vllm_cases() -> list[Case]:
    """Logs of the V0 and V1 engine."""
    small = llama_8b()
    bf16 = small.variants["bf16"]
    old = Configuration(
        small, bf16, 31232, "f16", version=(0, 6, 4), options={"max-num-batched-tokens": 20000, "max-num-seqs": 256}
    )
    new = Configuration(small, bf16, 135328, "f16", version=(0, 19, 0))
    gemma = gemma_27b()
    awq = Configuration(gemma, gemma.variants["w4a16"], 3584, "f16", 1, 1, version=(0, 8, 3))
    nvfp4 = shipped("mistral-small-3.2", "nvfp4", 402384, "fp8", version=(0, 19, 0))
    nvfp4_weights = safetensors_bytes(nvfp4.model.architecture, "nvfp4")
    unnamed = bytes_per_token(UNNAMED_48, "fp8")
    a100 = room(40, 0, "NVIDIA A100-SXM4-40GB")
    gb10 = room(121.63, 0, "NVIDIA GB10", unified=True)
    return [
        Case(20, WEIGHTS, "logged by the loader", bf16.weights_bytes, from_gib(stated(20, "weights_GB_logged"))),
        Case(20, KV, "1952 blocks of 16 tokens", 1952 * 16 * bytes_per_token(small.architecture.text, "f16"),
             from_gib(3.81), from_gib(0.005)),
        Case(20, TOTAL, "0.9 of 23.58 GiB", _in_budget(old, room(24), graphs=False), from_gib(0.9 * 23.58), 0, old),
        Case(22, TOTAL, "budget 21.55 GiB", _in_budget(awq, room(22.49), graphs=False), from_gib(21.55), 0, awq),
        Case(23, KV, "230,528 tokens in 10.55 GiB", 230528 * unnamed, from_gib(10.55), from_gib(0.005)),
        Case(24, KV, "221,000 tokens need 10.12 GiB", 221000 * unnamed, from_gib(10.12), from_gib(0.005)),
        Case(27, TOTAL, "0.85 of CUDA's 39.4 GiB", _in_budget(new, a100, graphs=True),
             int(0.85 * a100.cuda_total_bytes), 0, new),
        Case(36, WEIGHTS, "model loading took", nvfp4_weights, from_gib(stated(36, "model_loading_GiB"))),
        Case(36, KV, "12.28 x 32,768 tokens in 30.69 GiB", round(12.28 * 32768) * 81920,
             from_gib(30.69), from_gib(0.0125)),
        Case(36, TOTAL, "the engine core's memory", total(vllm.MEMORY, nvfp4, [gb10]),
             round(stated(36, "engine_core_MiB") * MIB), 0, nvfp4),
    ]  # fmt: skip


def _in_budget(config: Configuration, card: Room, graphs: bool) -> int:
    """What counts against vLLM's budget: all but its CUDA context; graphs where their estimate is taken out of it."""
    (one,) = vllm.footprints(config, [card])
    return one.needed_bytes - vllm.CUDA_CONTEXT - (0 if graphs else one.graphs_bytes)


# Rows without a figure to compare, and why.
UNJUDGED = {
    7: "states the failed allocation only (judged as a verdict)",
    10: "context not stated",
    11: "12 GB is what the engine left on the GPU by itself, not a demand (judged as a verdict)",
    16: "the load is reported, the failure at the first request is not explained (judged as a verdict)",
    17: "quantisation and context not stated",
    19: "another architecture; `ollama ps` of 0.30 counts wrongly",
    21: "states that the profile run failed, no bytes (judged as a verdict)",
    25: "an engine that mscli does not run",
    26: "context and bytes not stated (judged as a verdict)",
    28: "architecture not stated",
    29: "architecture not stated",
    30: "context not stated; the figure is the reservation",
    31: "hybrid architecture: part of the pool is not a KV cache",
    32: "hybrid architecture; pool not stated",
    33: "architecture not stated",
    34: "bytes not stated (judged as a verdict)",
    35: "context not stated (judged as a verdict)",
}


def cases() -> list[Case]:
    """Every figure that can be compared, by row."""
    return sorted([*llama_cpp_cases(), *ollama_cases(), *vllm_cases()], key=lambda case: case.row)


def main() -> int:
    """Print the tables."""
    print(f"{'row':>3} {'GiB':<50} {'ours':>8} {'measured':>9} {'error':>7} | llmfit  hf-mem gguf-parser")
    for case in cases():
        figures = f"{case.predicted / GIB:8.3f} {case.measured / GIB:9.3f} {case.error:+7.1%}"
        print(f"{case.row:>3} {f'{case.kind}: {case.what}':<50} {figures} | {_peers(case)}")
    print("\nwhat mscli would have said:")
    for item in verdicts():
        mark = "WRONG" if item.wrong else ""
        print(f"{item.row:>3} {item.what:<40} in reality: {item.reality:<18} said: {item.said.verdict:<5} {mark}")
    print("\nnot judged by a figure:")
    for row, reason in UNJUDGED.items():
        print(f"{row:>3} {rows()[row - 1]['model']}: {reason}")
    return 0


def _peers(case: Case) -> str:
    if case.config is None:
        return ""
    sums = (llmfit(case.config), hf_mem(case.config), gguf_parser(case.config, case.gpus))
    return " ".join(f"{gib_or_dash(size):>7}" for size in sums)


if __name__ == "__main__":
    sys.exit(main())
