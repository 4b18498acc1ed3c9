"""How fast a plan answers, and what that costs: a roofline over memory bandwidth and tensor throughput.

Decode reads every weight on the GPU once per token and the KV cache of each stream; an engine reaches a share of the
bandwidth. The shares are calibrated on published measurements of this model family; each comes with its range.
Several streams read the weights together: that model is stated here and has not been measured yet.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mscli.catalog.gpus import GpuFacts
from mscli.catalog.model import Model
from mscli.errors import Code, MscliError
from mscli.frozen import frozen
from mscli.planning.memory import Configuration, EngineMemory, Footprint, bytes_per_token, embedding_bytes
from mscli.planning.plan import Cost, Plan, Speed

DEPTH_TOKENS = 1000
PROMPT_TOKENS = 1000
# llama.cpp's kernels stop gaining above this, in bytes per second: 18.3 GB models on H200 and B300 run as on an H100.
GGML_CEILING = 1.3e12
# Bytes per second of host memory as llama.cpp reads offloaded layers (a 5070 Ti with 3 and 7 of 41 layers on the
# host), and of a PCIe 4.0 x16 link, over which vLLM and transformers fetch them.
HOST_BANDWIDTH, PCIE_BANDWIDTH = 45e9, 20e9


@frozen
class Efficiency:
    """Shares of the data sheet's figure: low, expected, high."""

    low: float
    expected: float
    high: float


# RTX 5090 0.71, 5070 Ti 0.86, 7900 XT 0.77, GB10 0.68, one card of 448 GB/s 0.92, RTX 4090 0.64 (llama.cpp, Ollama).
GGML = Efficiency(0.62, 0.75, 0.92)
# The same engine on HBM: A100-40 0.44, A100-80 0.39; H100 0.37 (llama.cpp).
GGML_A100, GGML_HOPPER = Efficiency(0.36, 0.42, 0.48), Efficiency(0.30, 0.37, 0.45)
# A100-40 BF16 8B 0.77, GB10 NVFP4 0.75; quantised kernels a little less (vLLM).
VLLM, VLLM_QUANTISED = Efficiency(0.58, 0.72, 0.85), Efficiency(0.50, 0.67, 0.82)
# No published row of this family: wide.
TRANSFORMERS, BITSANDBYTES, MISTRALRS = (
    Efficiency(0.2, 0.4, 0.6),
    Efficiency(0.1, 0.22, 0.4),
    Efficiency(0.35, 0.55, 0.8),
)
# Share of the joint bandwidth that tensor parallelism keeps. An assumption: no row of this family was published.
TENSOR_PARALLEL = 0.8
# Share of that roofline that an engine keeps when it decodes for several streams at once. Assumptions until measured:
# vLLM is made for it, llama.cpp's quantised kernels lose from about eight streams on, Transformers answers in turn.
TOGETHER = {"vllm": 0.8, "vllm-docker": 0.8, "llama.cpp": 0.5, "ollama": 0.5, "mistral.rs": 0.5, "transformers": 0.0}
# Prefill: share of dense FP16 throughput. GB10 0.51; GeForce cards run quantised GGUF on int8 at twice the rate that
# their halved FP16 figure says (5070 Ti 1.23, a 448 GB/s card 1.29).
PREFILL, PREFILL_GEFORCE_GGUF = 0.5, 1.2


def predict(
    config: Configuration,
    engine: str,
    memory: EngineMemory,
    footprints: Sequence[Footprint],
    cards: Sequence[GpuFacts | None],
) -> Speed | None:
    """Decode rate at 1,000 tokens of depth, that of all users together, and time to the first token of 1,000.

    None where a card's bandwidth is unknown, and on the CPU, whose memory bandwidth is not known.
    """
    known = [card for card in cards if card is not None]
    if not known or len(known) < len(cards):
        return None
    read = [_bytes_read(config, one, memory.split, len(cards), index) for index, one in enumerate(footprints)]
    low, expected, high = (_rate(config, engine, memory, known, read, level) for level in ("low", "expected", "high"))
    total = _together(config, engine, memory, known, read, expected)
    return Speed((low, expected, high), _first_token_s(config, engine, memory, known, 1 / expected), total)


def _together(
    config: Configuration,
    engine: str,
    memory: EngineMemory,
    cards: Sequence[GpuFacts],
    read: Sequence[float],
    alone: float,
) -> float:
    """Tokens per second of all users together: one step reads the weights once and each user's KV cache, and computes
    for each; never less than one stream alone."""
    if config.users == 1:
        return alone
    more = (config.users - 1) * _kv_read(config, len(cards))
    step_s = 1 / _rate(config, engine, memory, cards, [size + more for size in read], "expected")
    if flops := _flops(engine, memory, cards):
        step_s = max(step_s, config.users * 2 * config.text.parameters / flops)
    return max(alone, TOGETHER[engine] * config.users / step_s)


def _bytes_read(config: Configuration, one: Footprint, split: str, gpus: int, index: int) -> float:
    """Bytes one GPU reads per token: its weights without the embedding (one row is read), and its part of the KV."""
    weights = one.weights_bytes
    if config.variant.host_bytes == 0 and (split == "tensor" or index == 0):
        weights -= embedding_bytes(config.text, config.variant) // (gpus if split == "tensor" else 1)
    return weights + _kv_read(config, gpus)


def _kv_read(config: Configuration, gpus: int) -> float:
    """Bytes of one stream's KV cache that one GPU reads per token."""
    return bytes_per_token(config.text, config.kv_type) * min(DEPTH_TOKENS, config.context) / gpus


def _rate(
    config: Configuration,
    engine: str,
    memory: EngineMemory,
    cards: Sequence[GpuFacts],
    read: Sequence[float],
    level: str,
) -> float:
    """Tokens per second. Tensor parallelism waits for the slowest card, layer split for all of them in turn."""
    seconds = [size / _bandwidth(config, engine, card, level) for size, card in zip(read, cards, strict=True)]
    joint = max(seconds) / (TENSOR_PARALLEL if len(cards) > 1 else 1.0)
    return 1 / ((joint if memory.split == "tensor" else sum(seconds)) + _host_seconds(config, engine))


def _host_seconds(config: Configuration, engine: str) -> float:
    """Time per token for the layers left in host memory."""
    if not config.host_layers:
        return 0.0
    share = config.host_layers / config.text.layers
    bandwidth = HOST_BANDWIDTH if engine in ("llama.cpp", "ollama") else PCIE_BANDWIDTH
    return share * config.variant.weights_bytes / bandwidth


def _bandwidth(config: Configuration, engine: str, card: GpuFacts, level: str) -> float:
    """Bytes per second that the engine reaches on this card."""
    share: float = getattr(_efficiency(config, engine, card), level)
    reached = share * card.bandwidth_gb_s * 1e9
    return min(reached, GGML_CEILING * share / _efficiency(config, engine, card).expected) if _ggml(engine) else reached


def _ggml(engine: str) -> bool:
    return engine in ("llama.cpp", "ollama")


def _efficiency(config: Configuration, engine: str, card: GpuFacts) -> Efficiency:
    quantised = config.variant.quantisation != "bf16"
    if _ggml(engine):
        return {"8.0": GGML_A100, "9.0": GGML_HOPPER, "10.0": GGML_HOPPER, "10.3": GGML_HOPPER}.get(
            card.compute_capability, GGML
        )
    if engine == "transformers":
        return BITSANDBYTES if quantised else TRANSFORMERS
    if engine == "mistral.rs":
        return MISTRALRS
    return VLLM_QUANTISED if quantised else VLLM


def _first_token_s(
    config: Configuration, engine: str, memory: EngineMemory, cards: Sequence[GpuFacts], step_s: float
) -> float | None:
    """2 x parameters operations per prompt token at a share of the dense FP16 throughput; at least one step."""
    flops = _flops(engine, memory, cards)
    if flops is None:
        return None
    return max(PROMPT_TOKENS * 2 * config.text.parameters / flops + _host_seconds(config, engine), step_s)


def _flops(engine: str, memory: EngineMemory, cards: Sequence[GpuFacts]) -> float | None:
    """Operations per second that the engine reaches on these cards; None where a data sheet does not say."""
    known = [card.tensor_tflops_fp16_dense * 1e12 for card in cards if card.tensor_tflops_fp16_dense]
    if len(known) < len(cards):
        return None
    geforce = _ggml(engine) and all("GeForce" in card.name for card in cards)
    share = PREFILL_GEFORCE_GGUF if geforce else PREFILL
    return share * (sum(known) * TENSOR_PARALLEL if memory.split == "tensor" and len(known) > 1 else min(known))


HOURS = {"h": 1.0, "hour": 1.0, "d": 24.0, "day": 24.0, "week": 168.0, "month": 730.0}


def price_per_hour(text: str) -> float:
    """US dollars per hour of "1.20/day", "$0.50/h" or "300/month". Raises MscliError(USAGE) for anything else."""
    match = re.fullmatch(r"\s*\$?\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(?:USD)?\s*/\s*([a-z]+)\s*", text, re.IGNORECASE)
    if not match or match[2].lower() not in HOURS:
        raise MscliError(Code.USAGE, f"cannot read '{text}' as a price", "Write it as 1.20/day or 0.50/hour.")
    return float(match[1]) / HOURS[match[2].lower()]


def cost(plan: Plan, usd_per_hour: float, model: Model) -> Cost | None:
    """What a million output tokens cost with the plan's users decoding at once, beside the cheapest API that sells the
    model, or else its successor. Output tokens only: an API takes its price for input on top. None where the speed is
    unknown."""
    if plan.speed is None:
        return None
    per_day = plan.speed.total_tok_s * 86_400
    local = usd_per_hour * 24 / per_day * 1e6
    api = min(model.prices, key=lambda price: (price.instead is not None, price.output_usd_per_mtok), default=None)
    if api is None:
        return Cost(local, None, None, None, None, int(per_day))
    name = f"{api.seller} ({api.instead})" if api.instead else api.seller
    free = not api.output_usd_per_mtok
    break_even = None if free else round(usd_per_hour * 24 / api.output_usd_per_mtok * 1e6)
    return Cost(local, api.output_usd_per_mtok, name, api.date, break_even, int(per_day))
