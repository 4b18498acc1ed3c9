"""What mscli would have said before the start of each published row whose outcome is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from truth_models import gemma_27b, llama_8b

from mscli.catalog.gpus import load_gpus
from mscli.catalog.load import load_catalog
from mscli.catalog.model import Model
from mscli.inventory.inventory import Device, Inventory
from mscli.paths import shipped_profiles
from mscli.planning.described_machine import machine
from mscli.planning.known import Known
from mscli.planning.make import make
from mscli.planning.plan import GIB, MIB, NoFit, Overrides, Plan

RAN, PARTLY, FAILED = "ran", "partly on the CPU", "failed"


@dataclass(frozen=True)
class Verdict:
    """One row's outcome in reality and by plan. A row that did not run as a whole must not be called safe."""

    row: int
    what: str
    reality: str
    said: Plan | NoFit

    @property
    def wrong(self) -> bool:
        """Called safe although it did not run on the GPUs alone."""
        return self.reality != RAN and self.said.verdict == "safe"


class Asker:
    """Asks the planner about a shipped profile, with a model, an engine version and options of the row's own."""

    def __init__(self) -> None:
        self.facts = load_gpus(shipped_profiles())
        self.catalog = load_catalog(shipped_profiles(), Path("/nonexistent"))

    def on(self, cards: str, used_gib: float = 0.0, free_gib: float | None = None) -> Inventory:
        """A machine of known cards."""
        free = None if free_gib is None else round(free_gib * GIB)
        return machine(cards, self.facts, free_bytes=free, used_bytes=round(used_gib * GIB))

    def say(
        self,
        name: str,
        where: Inventory,
        overrides: Overrides,
        version: str = "",
        model: Model | None = None,
        **options: Any,
    ) -> Plan | NoFit:
        """The verdict."""
        profile = self.catalog.profile(name)
        flags = {key.replace("_", "-"): value for key, value in options.items()}
        changed = replace(profile, options={**profile.options, **flags})
        versions = {profile.engine: version} if version else {}
        return make(
            changed, model or self.catalog.models[profile.model], Known(where, (), self.facts, versions), overrides
        )


def verdicts() -> list[Verdict]:
    """All rows with a known outcome on known cards."""
    ask = Asker()
    return sorted([*_llama_cpp(ask), *_ollama(ask), *_no_flash(ask), *_vllm(ask)], key=lambda item: item.row)


def _f16(context: int, **more: Any) -> Overrides:
    return Overrides(context=context, kv_type="f16", **more)


def _llama_cpp(ask: Asker) -> list[Verdict]:
    desktop = ask.on("RTX 5070 Ti", used_gib=968 / 1024)
    found = [Verdict(26, "Q4_K_M on 12 GB", PARTLY, ask.say("small-gguf-q4", ask.on("RTX 5070"), _f16(4096, images=0)))]
    for row, context, reality in ((1, 12288, RAN), (2, 16384, PARTLY), (3, 32768, PARTLY)):
        said = ask.say("devstral-q4", desktop, Overrides(context=context, kv_type="q8_0"))
        found.append(Verdict(row, f"Devstral Q4_K_M, {context} tokens of q8_0", reality, said))
    return found


def _ollama(ask: Asker) -> list[Verdict]:
    with_a1000 = ask.on("RTX 3090")
    a1000 = Device(1, "GPU-a1000", "NVIDIA RTX A1000", 8188 * MIB, 8000 * MIB, "8.6", False, ())
    with_a1000 = replace(with_a1000, devices=(*with_a1000.devices, a1000))
    ten_gib = ask.on("A10", free_gib=9.9)
    cases = (
        (5, "65,536 tokens on 2 x 24 GB, 0.6", PARTLY, ask.on("2x RTX 3090"), _f16(65536), "0.6.5"),
        (6, "4,096 tokens in 9.9 GiB, 0.6.5", FAILED, ten_gib, _f16(4096), "0.6.5"),
        (7, "4,096 tokens of q4_0 on 24 + 8 GB", FAILED, with_a1000, Overrides(context=4096, kv_type="q4_0"), "0.9.6"),
        (
            8,
            "4,096 tokens of q8_0, 0.11.7",
            PARTLY,
            ask.on("RTX 4090"),
            Overrides(context=4096, kv_type="q8_0"),
            "0.11.7",
        ),
        (11, "2,048 tokens on an A10, 0.6.5", PARTLY, ask.on("A10"), _f16(2048), "0.6.5"),
        (35, "8,192 tokens on 16 GB, 0.20", PARTLY, ask.on("RTX 4060 Ti"), _f16(8192), "0.20.0"),
    )
    return [
        Verdict(row, what, reality, ask.say("small-q4", where, overrides, version))
        for row, what, reality, where, overrides, version in cases
    ]


def _no_flash(ask: Asker) -> list[Verdict]:
    """One table of a development build on an RTX 3090 and an RTX 5090."""
    where = ask.on("RTX 3090 + RTX 5090")
    outcomes = ((12, 2048, RAN), (13, 4096, RAN), (14, 8192, RAN), (15, 32768, PARTLY), (16, 16384, FAILED))
    return [
        Verdict(row, f"Q8_0, {context} tokens, no flash", reality, ask.say("small-q8", where, _f16(context), "0.11.5"))
        for row, context, reality in outcomes
    ]


def _vllm(ask: Asker) -> list[Verdict]:
    def util(share: float, **more: int) -> dict[str, float]:
        return {"gpu_memory_utilization": share, **more}

    text, small = "small-bf16", ask.catalog.models["mistral-small-3.1"]
    fp8 = Overrides(context=32768, images=0, kv_type="fp8")
    gemma = _f16(4096, images=0, variant="w4a16")
    cases: tuple[tuple[int, str, str, str, str, Overrides, str, Model, dict[str, float]], ...] = (
        (20, "8B, 20,000 tokens", RAN, text, "RTX 3090", _f16(20000, images=0), "0.6.4", llama_8b(), util(0.9)),
        (21, "int4 with images on 24 GB, 0.8.3", FAILED, "small-w4a16", "RTX 3090", _f16(4096, images=1), "0.8.3",
         small, util(0.95, max_num_seqs=2)),
        (22, "Gemma 3 27B int4 on 22 GB", FAILED, text, "A10G", gemma, "0.8.3", gemma_27b(), util(0.98)),
        (27, "8B, 32,768 tokens", RAN, text, "A100 40GB", _f16(32768, images=0), "0.19.0", llama_8b(), util(0.85)),
        (34, "FP8, 65,536 tokens on an L40S", RAN, "small-fp8", "L40S", _f16(65536, images=1), "", small, util(0.95)),
        (36, "NVFP4, 32,768 tokens of fp8", RAN, "small32-nvfp4", "GB10", fp8, "0.19.0",
         ask.catalog.models["mistral-small-3.2"], util(0.4)),
    )  # fmt: skip
    return [
        Verdict(row, what, reality, ask.say(profile, ask.on(cards), overrides, version, model, **options))
        for row, what, reality, profile, cards, overrides, version, model, options in cases
    ]
