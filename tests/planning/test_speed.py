"""Speed against the published rows, and what it costs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.planning.planned import catalog, choice, on, plan, verdict

from mscli.errors import MscliError
from mscli.planning.plan import Overrides, Plan
from mscli.planning.speed import cost, price_per_hour


@pytest.mark.parametrize(
    ("profile", "cards", "measured"),
    [
        ("small-q4", "RTX 5090", 91.3),  # Ollama, mistral-small:24b Q4_K_M
        ("devstral-q4", "RTX 5070 Ti", 54.9),  # llama.cpp, Devstral 24B Q4_K_M
        ("small-gguf-q4", "GB10", 13.2),  # llama.cpp
        ("small32-nvfp4", "GB10", 14.9),  # vLLM
        ("small-gguf-q4-text", "RTX 5060 Ti", 28.5),  # a card of 448 GB/s, UD-Q4_K_XL
    ],
)
def test_decode_rates_lie_in_the_predicted_range(profile: str, cards: str, measured: float) -> None:
    found = verdict(profile, cards, Overrides(context=4096))
    assert isinstance(found, Plan), found.reasons
    assert found.speed is not None
    low, expected, high = found.speed.decode_tok_s
    assert low <= measured <= high
    assert expected == pytest.approx(measured, rel=0.25)


@pytest.mark.parametrize(("cards", "measured"), [("RTX 5070 Ti", 2350), ("RTX 5060 Ti", 1293)])
def test_prompt_rates_are_within_a_third(cards: str, measured: float) -> None:
    speed = plan("small-gguf-q4-text", cards, Overrides(context=4096)).speed
    assert speed is not None
    assert speed.ttft_s is not None
    assert 1000 / speed.ttft_s == pytest.approx(measured, rel=0.33)


@pytest.mark.parametrize(("layers_on_gpu", "share"), [(38, 0.49), (34, 0.27)])
def test_offloaded_layers_cost_what_was_measured(layers_on_gpu: int, share: float) -> None:
    """A 5070 Ti with 38 and 34 of 41 layers on the GPU ran at 0.49 and 0.27 of its full rate."""
    from support.planning.planned import facts

    from mscli.planning.devices import rooms
    from mscli.planning.memory import Configuration, llamacpp
    from mscli.planning.speed import predict

    model = catalog().models["devstral-small-2507"]
    config = Configuration(model, model.variants["q4_k_m"], 16384, "q8_0")
    devices = rooms(on("RTX 5070 Ti"))[0]
    card = [facts()["NVIDIA GeForce RTX 5070 Ti"]]

    def rate(host_layers: int) -> float:
        less = replace(config, host_layers=host_layers)
        found = predict(less, "llama.cpp", llamacpp.MEMORY, llamacpp.footprints(less, devices), card)
        assert found is not None
        return found.decode_tok_s[1]

    assert rate(41 - layers_on_gpu) / rate(0) == pytest.approx(share, abs=0.08)


def test_unknown_cards_have_no_speed() -> None:
    where = on("RTX 4090")
    unknown = replace(where, devices=tuple(replace(device, name="NVIDIA Unheard Of") for device in where.devices))
    assert plan("small-q4", unknown).speed is None
    assert plan("small-cpu", "RTX 4090").speed is None


def test_two_gpus_are_faster_than_one_but_not_twice() -> None:
    one, two = plan("small-fp8", "A6000").speed, plan("small-fp8-2gpu", "2x A6000").speed
    assert one is not None
    assert two is not None
    assert one.decode_tok_s[1] < two.decode_tok_s[1] < 2 * one.decode_tok_s[1]


@pytest.mark.parametrize(
    ("text", "per_hour"), [("1.20/day", 0.05), ("$0.50/h", 0.5), ("0.5/hour", 0.5), ("73/month", 0.1)]
)
def test_prices_are_read(text: str, per_hour: float) -> None:
    assert price_per_hour(text) == pytest.approx(per_hour)


@pytest.mark.parametrize("text", ["cheap", "1.20", "1/year", "-1/day", f"{'9' * 400}/day", "nan/day"])
def test_other_prices_are_refused(text: str) -> None:
    with pytest.raises(MscliError, match="price"):
        price_per_hour(text)


def test_cost_stands_beside_the_cheapest_api() -> None:
    """At 1.20 dollars a day and 54 tokens a second a million tokens cost about a quarter dollar; Azure takes 0.30."""
    found = plan("small-q4", "RTX 4090")
    assert found.speed is not None
    paid = cost(found, price_per_hour("1.20/day"), catalog().models[found.model])
    assert paid is not None
    assert (paid.api, paid.api_usd_per_mtok, paid.api_date) == ("Azure", 0.3, "2026-11-29")
    assert paid.local_usd_per_mtok == pytest.approx(0.05 / (found.speed.decode_tok_s[1] * 3600) * 1e6)
    assert paid.break_even_tokens == 4_000_000
    assert paid.most_tokens == int(found.speed.decode_tok_s[1] * 86_400)


def test_a_model_that_nobody_sells_any_more_stands_beside_its_successor() -> None:
    found = plan("magistral-q4", "RTX 4090")
    paid = cost(found, 0.05, catalog().models[found.model])
    assert paid is not None
    assert paid.api == "Mistral (Mistral Small 4 (mistral-small-latest))"
    unsold = plan("devstral-q4", "RTX 4090")
    alone = cost(unsold, 0.05, catalog().models[unsold.model])
    assert alone is not None
    assert (alone.api, alone.api_usd_per_mtok, alone.break_even_tokens) == (None, None, None)


def test_the_dearer_the_machine_the_later_it_pays() -> None:
    found = plan("small-q4", "RTX 4090")
    model = catalog().models[found.model]
    even = [paid.break_even_tokens for per_hour in (0.05, 0.5, 2.5) if (paid := cost(found, per_hour, model))]
    assert even == [4_000_000, 40_000_000, 200_000_000]


@pytest.mark.parametrize(
    ("name", "cards"), [("small-bf16", "H100"), ("small-gguf-q4", "RTX 4090"), ("small-fp8", "L40S")]
)
def test_more_users_make_more_tokens_each_fewer_and_each_token_cheaper(name: str, cards: str) -> None:
    model = catalog().models["mistral-small-3.1"]
    one = plan(name, cards)
    assert one.speed is not None
    assert one.speed.total_tok_s == one.speed.decode_tok_s[1]
    totals = [one.speed.total_tok_s]
    for users in (2, 8):
        found = plan(name, cards, Overrides(users=users, context=4096))
        assert found.speed is not None
        assert totals[-1] <= found.speed.total_tok_s <= users * one.speed.total_tok_s
        totals.append(found.speed.total_tok_s)
        dear, cheap = cost(one, 1.0, model), cost(found, 1.0, model)
        assert dear is not None
        assert cheap is not None
        assert cheap.local_usd_per_mtok <= dear.local_usd_per_mtok
        assert cheap.break_even_tokens == dear.break_even_tokens
    assert totals[-1] > 2 * totals[0]


def test_an_engine_that_answers_in_turn_gains_nothing_from_more_users() -> None:
    found = plan("small-4bit", "RTX 4090", Overrides(users=2, context=4096))
    assert found.engine == "transformers"
    assert found.speed is not None
    assert found.speed.total_tok_s == found.speed.decode_tok_s[1]


def test_no_speed_no_cost() -> None:
    assert cost(plan("small-cpu", "RTX 4090"), 1.0, catalog().models["mistral-small-3.1"]) is None


def test_choice_carries_speed() -> None:
    chosen = choice("H100").chosen
    assert chosen is not None
    assert chosen.speed is not None
    assert 40 < chosen.speed.decode_tok_s[1] < 65
