"""Reasons are true: what a plan says of itself is asked of the planner again."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.planning.planned import catalog, choice, on, plan, verdict

from mscli.planning.plan import SAFE, NoFit, Overrides, Plan
from mscli.planning.search import ROUNDING

CARDS = (
    "RTX 3060", "RTX 3090", "RTX 4090", "RTX 5090", "T4", "L4", "A6000", "H100", "2x RTX 3060", "2x RTX 4090",
    "4x RTX 3060", "2x A16", "GB10",
)  # fmt: skip
BY_GPU = [name for name, profile in catalog().profiles.items() if profile.device == "gpu"]


@pytest.mark.parametrize("cards", CARDS)
@pytest.mark.parametrize("users", [1, 4])
def test_a_smaller_kv_type_is_taken_only_where_the_first_holds_less(cards: str, users: int) -> None:
    for name in BY_GPU:
        found = verdict(name, cards, Overrides(users=users))
        if not isinstance(found, Plan) or not any("would hold fewer tokens" in step for step in found.steps):
            continue
        first = catalog().profiles[name].kv_types[0]
        there = ",".join(map(str, found.gpus))
        with_first = verdict(name, cards, Overrides(users=users, kv_type=first, gpus=tuple(there.split(","))))
        assert isinstance(with_first, NoFit) or with_first.verdict != SAFE or with_first.context < found.context


@pytest.mark.parametrize("cards", CARDS)
def test_memory_is_named_as_the_limit_only_where_it_is(cards: str) -> None:
    for name in BY_GPU:
        found = verdict(name, cards)
        if not isinstance(found, Plan) or found.verdict != SAFE or found.layers_on_gpu <= 40:
            continue
        said = next((step for step in found.steps if step.startswith("context ")), "")
        more = Overrides(
            context=found.context + ROUNDING, kv_type=found.kv_type, gpus=tuple(str(gpu) for gpu in found.gpus),
            images=found.images,
        )  # fmt: skip
        longer = verdict(name, cards, more)
        fits = isinstance(longer, Plan) and longer.verdict == SAFE and longer.layers_on_gpu > 40
        if "limited by free GPU memory" in said:
            assert not fits, f"{name} on {cards}: {said}"
        if "--prefer context" in said:
            assert fits, f"{name} on {cards}: {said}"
            preferred = verdict(name, cards, Overrides(prefer="context"))
            assert isinstance(preferred, Plan)
            assert preferred.context > found.context


def test_a_context_for_several_users_is_said_to_be_each_one_s() -> None:
    steps = plan("small-gguf-q4", "RTX 4090", Overrides(users=4)).steps
    assert any(step.startswith("context ") and "tokens each" in step for step in steps)


def test_a_card_that_cannot_run_a_kv_type_is_the_reason_and_not_its_size() -> None:
    old = on("RTX 3090")
    old = replace(old, devices=tuple(replace(device, compute_capability="5.2") for device in old.devices))
    found = plan("small-gguf-q4", old, Overrides(kv_type="q8_0"))
    assert found.kv_type == "f16"
    assert "f16 KV cache: NVIDIA GeForce RTX 3090 cannot run q8_0" in found.steps


@pytest.mark.parametrize(
    ("cards", "closest"), [("RTX 3090", "small-q4"), ("2x RTX 3090", "small-fp8"), ("H100", "small-bf16")]
)
def test_under_an_old_driver_the_profile_named_would_fit_with_a_newer_one(cards: str, closest: str) -> None:
    where = replace(on(cards), driver="470.82.01", cuda="11.4")
    found = choice(where)
    assert found.chosen is None
    assert found.reason.startswith(f"the driver is too old; with a newer one {closest} would fit: ")
    assert "11.4" in found.reason
    assert isinstance(verdict(closest, cards), Plan)


def test_where_nothing_fits_the_closest_is_the_one_that_lacks_least() -> None:
    found = choice("RTX 3060")
    assert found.chosen is None
    short = {
        item.profile: item.missing_bytes
        for item in found.ranked
        if isinstance(item, NoFit) and item.missing_bytes and catalog().profiles[item.profile].automatic
    }
    assert found.reason.startswith(f"nothing fits; the closest is {min(short, key=lambda name: short[name])}: ")


@pytest.mark.parametrize("prefer", ["quality", "speed", "context"])
@pytest.mark.parametrize("cards", ["RTX 3090", "RTX 4090", "A6000", "2x RTX 4090"])
def test_what_is_called_too_big_is_better_and_does_not_fit(cards: str, prefer: str) -> None:
    found = choice(cards, Overrides(prefer=prefer))
    assert found.chosen is not None
    named = found.reason.partition("; too big: ")[2]
    ranks = {name: profile.rank for name, profile in catalog().profiles.items()}
    for words in named.split(", ") if named else ():
        name = words.split(" ")[0]
        assert prefer == "quality", "by speed and context nobody knows whether what does not fit is better"
        assert ranks[name] < ranks[found.chosen.profile]
        assert isinstance(verdict(name, cards), NoFit)


def test_what_does_not_fit_for_many_is_said_with_their_number() -> None:
    found = verdict("small-gguf-q4", "RTX 4090", Overrides(users=64, context=4096))
    assert isinstance(found, NoFit)
    assert "needed at 64 x 4,096 tokens" in found.reasons[0]
    assert isinstance(verdict("small-gguf-q4", "RTX 4090", Overrides(context=4096)), Plan), "one of them would fit"
