"""The profile taken when none is named."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.planning.planned import catalog, choice, held, holder, on, verdict

from mscli.planning.plan import SAFE, NoFit, Overrides, Plan


@pytest.mark.parametrize(
    ("cards", "profile"),
    [
        ("RTX 3090", "small-q4"),
        ("RTX 4090", "small-q4"),
        ("2x RTX 4090", "small-gguf-q8"),
        ("2x RTX 3090", "small-gguf-q8"),
        ("4x RTX 3060", "small-fp8"),
        ("2x RTX 5090", "small-bf16"),
        ("A6000", "small-fp8"),
        ("L40S", "small-fp8"),
        ("H100", "small-bf16"),
        ("A100 80GB", "small-bf16"),
        ("8x H100", "small-bf16"),
        ("2x A100 40GB", "small-bf16"),
    ],
)
def test_the_best_that_fits(cards: str, profile: str) -> None:
    found = choice(cards)
    assert found.chosen is not None, found.reason
    assert found.chosen.profile == profile, found.reason
    assert found.chosen.verdict == SAFE


def test_nothing_fits_a_3060() -> None:
    found = choice("RTX 3060")
    assert found.chosen is None
    assert "short" in found.reason


@pytest.mark.parametrize("cards", ["T4", "V100-SXM2-16GB", "RTX 4060 Ti"])
def test_16_gb_hold_the_text_model_without_images(cards: str) -> None:
    """Q4 with its vision encoder does not fit 16 GB; without it there is room for a short context."""
    found = choice(cards)
    assert found.chosen is not None
    assert (found.chosen.profile, found.chosen.images) == ("small-gguf-q4", 0)
    assert found.chosen.memory[0].projector_bytes == 0
    assert any(step.startswith("text only: ") for step in found.chosen.steps)
    seeing = verdict("small-gguf-q4", cards, Overrides(images=4))
    assert seeing.verdict != SAFE


def test_what_answers_slower_than_people_read_is_passed_over() -> None:
    """BF16 fits a GB10 and would give 4 tokens a second there."""
    found = choice("GB10")
    assert found.chosen is not None
    assert found.chosen.speed is not None
    assert found.chosen.speed.decode_tok_s[1] > 6
    assert any(item.profile == "small-bf16" for item in found.ranked if isinstance(item, Plan))


def test_no_gpu_is_never_a_cpu_run() -> None:
    found = choice(replace(on("RTX 4090"), devices=(), gpus=()))
    assert found.chosen is None
    assert "no GPU" in found.reason


def test_profiles_for_the_cpu_and_by_name_only_are_never_taken_unasked() -> None:
    for cards in ("T4", "RTX 3060", "RTX 4090"):
        chosen = choice(cards).chosen
        assert chosen is None or catalog().profiles[chosen.profile].automatic


def test_every_profile_gets_a_verdict_best_first() -> None:
    found = choice("2x RTX 4090")
    assert {item.profile for item in found.ranked} == set(catalog().profiles)
    assert found.ranked[0] is found.chosen
    kinds = [isinstance(item, NoFit) for item in found.ranked]
    assert kinds == sorted(kinds)


def test_the_reason_names_what_better_profiles_miss() -> None:
    assert "small-bf16 (" in choice("2x RTX 4090").reason


def test_a_full_card_gives_the_reason_with_the_holder() -> None:
    full = held(on("RTX 4090"), 0, holder(4242, 20))
    found = choice(full)
    assert found.chosen is None
    refused = next(item for item in found.ranked if isinstance(item, NoFit) and item.profile == "small-q4")
    assert "4242" in " ".join(refused.reasons)


def test_preferring_context_takes_the_longest() -> None:
    found = choice("RTX 4090", Overrides(prefer="context"))
    assert found.chosen is not None
    automatic = [
        item for item in found.ranked
        if isinstance(item, Plan) and item.verdict == SAFE and catalog().profiles[item.profile].automatic
    ]  # fmt: skip
    assert found.chosen.context == max(item.context for item in automatic)


def test_preferring_speed_takes_the_fastest() -> None:
    found = choice("H100", Overrides(prefer="speed"))
    assert found.chosen is not None
    assert found.chosen.speed is not None
    assert found.chosen.variant == "w4a16"


def test_an_engine_narrows_the_choice() -> None:
    found = choice("H100", Overrides(engine="ollama"))
    assert found.chosen is not None
    assert {item.engine for item in found.ranked} == {"ollama"}
