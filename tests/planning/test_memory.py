"""Bytes by formula: KV cache, weights and their split, vLLM's budget, Ollama before and after 0.30."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.planning.planned import catalog

from mscli.planning.devices import Room, cuda_total
from mscli.planning.memory import (
    Configuration,
    bytes_per_layer,
    bytes_per_token,
    layer_split,
    layers,
    llamacpp,
    ollama,
    vllm,
)
from mscli.planning.plan import GIB, MIB
from mscli.planning.request import KV_BY_ENGINE, memory_of

SMALL = catalog().models["mistral-small-3.1"]
TEXT = SMALL.architecture.text


def card(total_gib: float, name: str = "NVIDIA GeForce RTX 4090", index: int = 0) -> Room:
    total = round(total_gib * GIB)
    return Room(index, f"GPU-{index}", name, total, cuda_total(total), "8.9", False, ())


def small(variant: str, context: int = 32768, kv_type: str = "f16", **more: object) -> Configuration:
    return replace(Configuration(SMALL, SMALL.variants[variant], context, kv_type), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kv_type", "per_token"), [("f16", 163840), ("fp8", 81920), ("q8_0", 87040), ("q4_0", 46080), ("f32", 327680)]
)
def test_kv_bytes_per_token(kv_type: str, per_token: int) -> None:
    assert bytes_per_token(TEXT, kv_type) == per_token


@pytest.mark.parametrize(("gpus", "share"), [(1, 163840), (2, 81920), (4, 40960), (8, 20480), (16, 20480)])
def test_tensor_parallel_divides_the_kv_cache_down_to_one_head(gpus: int, share: int) -> None:
    assert bytes_per_token(TEXT, "f16", gpus) == share


@pytest.mark.parametrize("name", sorted(SMALL.variants))
def test_layers_and_ends_make_up_all_weights(name: str) -> None:
    cut = layers(TEXT, SMALL.variants[name])
    assert cut.embedding + TEXT.layers * cut.layer + cut.output + cut.rest == SMALL.variants[name].weights_bytes


def test_bf16_over_two_gpus_takes_22_8_gib_each() -> None:
    """The figure that rules out two 24 GB cards: half the text, and the whole vision encoder on both."""
    one, two = vllm.footprints(small("bf16"), [card(24), card(24, index=1)])
    assert one == two
    assert (one.weights_bytes + one.projector_bytes) / GIB == pytest.approx(22.8, abs=0.05)


@pytest.mark.parametrize(("version", "graphs_inside"), [((0, 20, 1), False), ((0, 21, 0), True), (None, True)])
def test_vllm_graphs_lie_in_the_budget_since_0_21(version: tuple[int, ...] | None, graphs_inside: bool) -> None:
    config, room = small("w4a16", version=version), card(24)
    budget = int(0.92 * room.cuda_total_bytes)
    graphs = vllm.footprints(config, [room])[0].graphs_bytes
    outside = vllm.limits(config, [room])[0] - budget
    assert outside == vllm.CUDA_CONTEXT + (0 if graphs_inside else graphs)


def test_vllm_counts_blocks_as_its_log_does() -> None:
    """A GB10 log: 30.69 GiB of fp8 KV cache hold 12.28 x 32,768 tokens. vLLM counts available // page // layers
    (get_num_blocks in vllm/v1/core/kv_cache_utils.py); "GPU KV cache size" in its log is this x 16."""
    text = small("w4a16", kv_type="fp8").text
    blocks = round(30.69 * GIB) // (vllm.BLOCK_TOKENS * bytes_per_layer(text, "fp8")) // text.layers
    assert blocks * 16 == pytest.approx(12.28 * 32768, rel=0.001)


def test_vllm_batches_grow_with_the_card_except_on_a_100() -> None:
    config = small("bf16")
    assert vllm.batch_sizes(config, [card(80, "NVIDIA H100 80GB HBM3")]) == (8192, 1024)
    assert vllm.batch_sizes(config, [card(80, "NVIDIA A100-SXM4-80GB")]) == (2048, 256)
    assert vllm.batch_sizes(config, [card(48, "NVIDIA L40S")]) == (2048, 256)
    assert vllm.batch_sizes(replace(config, options={"max-num-seqs": 16}), [card(24)]) == (2048, 16)


def test_old_ollama_reserves_the_image_graph() -> None:
    """Ollama 0.6.5 logged projector.graph 8.8 GiB for Mistral Small 3.1; since 0.30 nothing of the kind is taken."""
    config = small("ollama-q4_k_m", 4096)
    assert ollama.projector_graph(config) / GIB == pytest.approx(8.73, abs=0.01)
    old = ollama.footprints(replace(config, version=(0, 11, 7)), [card(24)])[0]
    new = ollama.footprints(replace(config, version=(0, 30, 8)), [card(24)])[0]
    assert old.needed_bytes - new.needed_bytes > 8 * GIB
    assert old.needed_bytes > ollama.limits(replace(config, version=(0, 11, 7)), [card(24)])[0]


def test_the_embedding_stays_in_host_memory() -> None:
    """Full offload on one GPU: the whole file but the token embedding, which llama.cpp logs as a CPU buffer."""
    config = small("q8_0", 8192)
    (one,) = llamacpp.footprints(config, [card(48)])
    assert one.weights_bytes == config.variant.weights_bytes - config.variant.host_bytes
    assert llamacpp.host(config, [card(48)]).weights_bytes == 680 * MIB


def test_layers_follow_free_memory() -> None:
    """llama.cpp's split for Llama 3.3 70B on 32 and 24 GB cards put 49 of 80 layers on the larger; so is ours."""
    counts = layer_split(80, round(0.4 * GIB), [round(31.4 * GIB), round(23.6 * GIB)])
    assert sum(counts) == 80
    assert counts[0] == pytest.approx(49, abs=3)


@pytest.mark.parametrize("engine", sorted(KV_BY_ENGINE))
def test_gpus_and_host_hold_every_weight_once(engine: str) -> None:
    """Whatever stays in host memory, nothing is lost and nothing is counted twice (the vision encoder apart)."""
    variant = {"ollama": "ollama-q4_k_m", "llama.cpp": "q4_k_m", "transformers": "bnb-4bit"}.get(engine, "fp8")
    rooms = [card(24), card(24, index=1)]
    for host_layers in (0, 7):
        config = small(variant, host_layers=host_layers)
        on_gpus = sum(one.weights_bytes for one in memory_of(engine).footprints(config, rooms))
        assert on_gpus + memory_of(engine).host(config, rooms).weights_bytes == pytest.approx(
            config.variant.weights_bytes, abs=TEXT.layers + 2
        )


@pytest.mark.parametrize(("nvml_gib", "cuda_gib"), [(24.0, 23.58), (79.65, 79.19), (80.0, 79.25), (95.59, 94.97)])
def test_cuda_sees_less_than_nvml(nvml_gib: float, cuda_gib: float) -> None:
    assert cuda_total(round(nvml_gib * GIB)) / GIB == pytest.approx(cuda_gib, abs=0.2)
