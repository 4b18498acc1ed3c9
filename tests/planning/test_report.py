"""The field names that scripts rely on."""

from __future__ import annotations

import json

from support.planning.planned import choice, plan, refusal

from mscli.planning.plan import to_json

FIELDS = {
    "profile", "engine", "verdict", "reasons", "context", "kv_type", "tensor_parallel", "images", "users", "gpus",
    "memory", "speed", "cost",
}  # fmt: skip
MEMORY = {
    "gpu", "free_bytes", "held_bytes", "weights_bytes", "projector_bytes", "kv_bytes", "compute_bytes",
    "graphs_bytes", "runtime_bytes", "margin_bytes",
}  # fmt: skip


def test_a_plan_has_every_field_and_its_bytes_add_up() -> None:
    found = to_json(plan("small-bf16", "2x RTX 5090"))
    assert set(found) >= FIELDS
    assert found["speed"].keys() == {"decode_tok_s", "ttft_s", "total_tok_s"}
    for gpu in found["memory"]:
        assert gpu.keys() >= MEMORY
        parts = ("weights", "projector", "kv", "compute", "graphs", "runtime", "margin")
        assert gpu["free_bytes"] == sum(gpu[f"{part}_bytes"] for part in parts)
    json.dumps(found)


def test_a_refusal_has_the_same_fields() -> None:
    found = to_json(refusal("small-bf16", "2x RTX 4090"))
    assert set(found) >= FIELDS
    assert found["verdict"] == "no"
    assert found["missing_bytes"] > 0
    assert found["context"] is None
    json.dumps(found)


def test_a_choice_names_the_chosen_and_all_verdicts() -> None:
    found = choice("RTX 4090")
    assert found.chosen is not None
    assert (found.chosen.profile, found.ranked[0].profile) == ("small-q4", "small-q4")
    assert choice("RTX 3060").chosen is None
