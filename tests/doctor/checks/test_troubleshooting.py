"""The guides' troubleshooting table: each row is prevented, or found and named. See docs/how-to/troubleshoot.md."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.doctor.visits import Doctor
from support.hub import Hub
from support.run_mscli import Mscli
from support.weights.hub_profile import REPOSITORY, at

from mscli.catalog.load import load_catalog
from mscli.paths import shipped_profiles

Machine = Callable[..., dict[str, str]]
PROFILE = ("--only", "profile")


@pytest.fixture
def cause_in(mscli: Mscli) -> Callable[[str], str]:
    """The likeliest cause in a log."""

    def read(log: str) -> str:
        return str(mscli("doctor", "--log", "-", "--json", stdin=log).data["causes"][0]["code"])

    return read


def command(mscli: Mscli, profile: str, env: dict[str, str]) -> list[str]:
    """The words that `mscli up` would run."""
    ran = mscli("up", profile, "--dry-run", "--json", env=env)
    assert ran.code == 0, ran.out
    return list(ran.data["plan"]["command"]["argv"])


def own(home: Path, text: str) -> None:
    path = home / "config" / "profiles" / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(f"title: Mine\nmodel: mistral-small-3.1\n{text}")


def pairs(words: list[str]) -> set[tuple[str, str]]:
    return set(pairwise(words))


def test_out_of_memory_on_a_4090(
    doctor: Doctor, mscli: Mscli, machine: Machine, cause_in: Callable[[str], str]
) -> None:
    env = machine("rtx4090")
    found = doctor("small-bf16", *PROFILE, env=env).bad("profile.plan")
    assert (found["status"], found["code"]) == ("fail", "oom_weights")
    assert found["command"], "what does fit must be typeable"
    chosen = mscli("up", "--dry-run", "--json", env=env).data["plan"]
    assert "q4" in chosen["variant"], "alone, `mscli up` takes four bits on this card"
    assert cause_in("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 320.00 MiB.\n") == "oom_weights"


def test_ollama_model_not_found(
    mscli: Mscli, doctor: Doctor, hub: Hub, tiny: str, cause_in: Callable[[str], str]
) -> None:
    models = load_catalog(shipped_profiles(), None).models.values()
    tags = [v.source.repository for model in models for v in model.variants.values() if v.source.kind == "ollama"]
    assert tags
    assert all(tag.split(":")[0] in ("mistral-small3.1", "mistral-small3.2", "magistral", "devstral") for tag in tags)
    ran = mscli("up", "mistral-small3.9", "--json")
    assert ran.code == 2
    assert "mistral-small3." in ran.error["hint"]
    assert cause_in('{"error":"model \'mistral-small-3.1\' not found"}\n') == "model_not_found"
    hub.repositories.pop(REPOSITORY)
    found = doctor(tiny, "--only", "network", env=at(hub)).bad("network.repository")
    assert (found["status"], found["code"]) == ("fail", "model_not_found")


def test_vllm_tokenizer_errors(doctor: Doctor, mscli: Mscli, machine: Machine, home: Path) -> None:
    env, triple = machine("h100-80"), ("--tokenizer-mode", "--config-format", "--load-format")
    assert {(flag, "mistral") for flag in triple} <= pairs(command(mscli, "small-bf16", env))
    assert not set(triple) & set(command(mscli, "small-fp8", env)), "this repository is in the other format"
    own(home, "engine: vllm\nvariant: fp8\noptions: {load-format: mistral}\n")
    found = doctor("mine", *PROFILE, env=env).bad("profile.format")
    assert (found["status"], found["code"]) == ("fail", "tokenizer_format")


@pytest.mark.usefixtures("gpu_llama")
def test_poor_output_quality_by_temperature(doctor: Doctor, mscli: Mscli, machine: Machine, home: Path) -> None:
    env = machine("rtx4090")
    assert ("--temp", "0.15") in pairs(command(mscli, "small-gguf-q4", env))
    assert '{"temperature": 0.15}' in command(mscli, "small-bf16", machine("h100-80"))
    own(home, "engine: llama.cpp\nvariant: q4_k_m\noptions: {temp: 0.8}\n")
    found = doctor("mine", *PROFILE, env=env).bad("profile.sampling")
    assert (found["status"], found["code"]) == ("fail", "sampling")
    assert "0.15" in found["seen"]


def test_vision_on_one_gpu(doctor: Doctor, machine: Machine, home: Path, cause_in: Callable[[str], str]) -> None:
    seen = doctor("small-gguf-q4", *PROFILE, env=machine("rtx4090"))
    assert "projector 0.8 GiB" in str(seen.good("profile.plan")["evidence"])
    assert "4 images" in seen.good("profile.vision")["seen"]
    own(home, "engine: vllm\nvariant: bf16\nimages: 10\ncontext: {floor: 100000}\n")

    def shrink(description: dict[str, Any]) -> None:
        memory = description["gpus"][0]["memory_mib"]
        memory["total"], memory["used"] = 64 * 1024, 700

    small = doctor("mine", *PROFILE, env=machine("h100-80", shrink)).bad("profile.plan")
    assert (small["status"], small["code"]) == ("fail", "oom_kv")
    assert "--ctx" in small["command"], "the guide's 'reduce --max-model-len', with the number"
    assert cause_in('{"code":500,"message":"image input is not supported by this server"}\n') == "vision"


@pytest.mark.usefixtures("gpu_llama")
def test_function_calls_return_empty(
    doctor: Doctor, mscli: Mscli, machine: Machine, home: Path, cause_in: Callable[[str], str]
) -> None:
    env = machine("h100-80")
    words = command(mscli, "small-bf16", env)
    assert ("--tool-call-parser", "mistral") in pairs(words)
    assert "--enable-auto-tool-choice" in words
    assert "--jinja" in command(mscli, "small-gguf-q4", env)
    own(home, "engine: vllm\nvariant: bf16\noptions: {tool-call-parser: hermes}\n")
    found = doctor("mine", *PROFILE, env=env).bad("profile.tools")
    assert (found["status"], found["code"]) == ("fail", "tools")
    log = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set\n'
    assert cause_in(log) == "tools"
    assert mscli("up", "rehearsal", "--json").code == 0
    checked = mscli("check", "--json")
    assert checked.code == 0, checked.out
