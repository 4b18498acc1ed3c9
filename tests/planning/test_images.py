"""Whether a model that sees is planned with images: unless they cost more than a fifth of the context."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.planning.planned import DESKTOP, choice, facts, on, pair, plan, refusal

from mscli.planning.known import Known
from mscli.planning.make import choose, make
from mscli.planning.plan import GIB, SAFE, TIGHT, Choice, Overrides, Plan

NO_IMAGES = Overrides(images=0)


@pytest.mark.parametrize("cards", ["2x RTX 5090", "2x A6000", "4x RTX 4090", "H100"])
def test_images_are_planned_where_they_cost_little(cards: str) -> None:
    seeing, text = plan("small-bf16", cards), plan("small-bf16", cards, NO_IMAGES)
    assert seeing.images == 10
    assert seeing.context >= 0.8 * text.context


def test_the_plan_says_what_images_cost() -> None:
    seeing, text = plan("small-bf16", "2x RTX 5090"), plan("small-bf16", "2x RTX 5090", NO_IMAGES)
    cost = text.context - seeing.context
    assert cost > 0
    assert f"with images, which take {cost:,} of {text.context:,} tokens (--images 0 leaves them out)" in seeing.reasons


def test_images_that_cost_nothing_are_not_spoken_of() -> None:
    assert not any("with images" in reason for reason in plan("small-bf16", "H100").reasons)


@pytest.mark.parametrize("free", range(50, 62))
def test_on_two_cards_images_never_cost_more_than_a_fifth_of_the_context(free: int) -> None:
    """From too little memory for images to enough, in steps of half a GiB on each of two cards."""
    where = on("2x RTX 5090", free=free * GIB // 2)
    found = make(*pair("small-bf16"), Known(where, (), facts()))
    text = make(*pair("small-bf16"), Known(where, (), facts()), NO_IMAGES)
    asked = make(*pair("small-bf16"), Known(where, (), facts()), Overrides(images=10))
    if not isinstance(text, Plan):
        assert not isinstance(found, Plan)
        return
    assert isinstance(found, Plan)
    cheap = isinstance(asked, Plan) and 5 * asked.context >= 4 * text.context
    safe = isinstance(asked, Plan) and (asked.verdict == SAFE or text.verdict == TIGHT)
    assert (found.images == 10) == (cheap and safe)
    if not found.images:
        assert any(step.startswith("text only: ") for step in found.steps)


def test_where_images_do_not_fit_the_plan_is_for_text_and_says_how_much_is_short() -> None:
    found = plan("small-gguf-q4", "T4")
    short = refusal("small-gguf-q4", "T4", Overrides(images=4)).missing_bytes
    assert found.images == 0
    assert f"text only: {short / GIB:.1f} GiB short with images" in found.steps


def test_images_that_are_asked_for_are_planned_whatever_they_cost() -> None:
    assert plan("small-bf16", "2x RTX 5090", Overrides(images=10)).images == 10
    assert plan("small-bf16", "H100", NO_IMAGES).images == 0


def test_a_profile_that_may_not_drop_them_keeps_its_images() -> None:
    profile, model = pair("small-gguf-q4")
    kept = make(replace(profile, drop_images=False), model, Known(on("T4"), (), facts()))
    assert not isinstance(kept, Plan)
    assert kept.nearest == "--images 0"


def test_where_nothing_fits_the_shortage_is_that_of_text_alone() -> None:
    found = refusal("small-gguf-q4", "RTX 3060")
    assert found.missing_bytes == refusal("small-gguf-q4", "RTX 3060", NO_IMAGES).missing_bytes
    assert any(reason.startswith("with images: ") for reason in found.reasons)


def test_what_had_to_give_up_images_comes_after_what_keeps_them() -> None:
    """On four cards of 8 GB with a desktop Q8_0 fits for text, with a short context, Q4_K_M with images."""
    chosen = choice(on("4x RTX 4060", used=DESKTOP)).chosen
    assert chosen is not None
    assert (chosen.profile, chosen.images, chosen.images_dropped) == ("small-gguf-q4", 4, False)


@pytest.mark.parametrize("cards", ["2x RTX 4090", "2x RTX 3090", "2x L4"])
def test_on_two_cards_the_way_with_images_is_taken_and_the_plan_says_why(cards: str) -> None:
    """FP8 takes none; Q8_0 has as many bits, and more context here."""
    found = choice(cards)
    assert found.chosen is not None
    assert (found.chosen.profile, found.chosen.images) == ("small-gguf-q8", 4)
    assert "; takes images, which small-fp8 does not" in found.reason
    assert "text only: images cost no context, with small-gguf-q8" in text_plan(found).steps


def text_plan(found: Choice) -> Plan:
    return next(each for each in found.ranked if isinstance(each, Plan) and each.profile == "small-fp8")


@pytest.mark.parametrize("free", range(34, 62, 2))
def test_across_ways_images_never_cost_more_than_a_fifth_of_the_context_on_two_cards(free: int) -> None:
    found = choice(on("2x RTX 5090", free=free * GIB // 2))
    plans = {each.profile: each for each in found.ranked if isinstance(each, Plan)}
    text, seeing = plans.get("small-fp8"), plans.get("small-gguf-q8")
    if found.chosen is seeing and text and seeing:
        assert seeing.context >= 0.8 * text.context
    if found.chosen is text and text:
        assert len(text.gpus) != 2 or not seeing or not seeing.images or seeing.context < 0.8 * text.context


def test_images_that_would_cost_more_than_a_fifth_stay_out_and_the_plan_says_how_much() -> None:
    """An engine that may hold no more than 64,000 tokens on these two cards."""
    profile, model = pair("small-gguf-q8")
    short = replace(profile, context=replace(profile.context, cap=64_000))
    found = choose([pair("small-fp8"), (short, model)], Known(on("2x RTX 4090"), facts=facts()))
    assert found.chosen is not None
    assert found.chosen.profile == "small-fp8"
    assert "text only: images would cost 34,304 tokens of context, with small-gguf-q8" in found.chosen.steps


@pytest.mark.parametrize("wish", [NO_IMAGES, Overrides(engine="vllm")])
def test_who_wants_no_images_or_names_the_engine_gets_the_faster_way(wish: Overrides) -> None:
    chosen = choice("2x RTX 4090", wish).chosen
    assert chosen is not None
    assert chosen.profile == "small-fp8"


@pytest.mark.parametrize("cards", ["A6000", "4x RTX 3060"])
def test_on_one_card_and_on_four_the_plan_only_says_where_images_are(cards: str) -> None:
    chosen = choice(cards).chosen
    assert chosen is not None
    assert chosen.profile == "small-fp8"
    assert any(step.startswith("text only: images ") for step in chosen.steps)
