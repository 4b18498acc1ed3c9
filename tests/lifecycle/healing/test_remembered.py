"""What was found out at one start, and at which later ones it holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mscli.lifecycle.learning import Circumstances, Remembered, recall, remember, remembered
from mscli.paths import Places
from mscli.planning.adjustment import NOTHING, Adjustment
from mscli.planning.plan import Overrides

GIB = 2**30
THEN = Circumstances(("NVIDIA GeForce RTX 4090",), "vllm", "0.32.0", "mine", "0123456789abcdef", Overrides(), 20 * GIB)
FOUND = Adjustment(
    context=6400, kv_types=("fp8",), options={"swap-space": False, "enforce-eager": True}, env={"A": "1"}
)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    made = Places(tmp_path / "config", tmp_path / "state", tmp_path / "data")
    remember(made, Remembered(THEN, FOUND))
    return made


def test_the_same_start_begins_with_all_of_it(places: Places) -> None:
    assert recall(THEN, remembered(places)).adjustment == FOUND
    assert recall(replace(THEN, room_bytes=15 * GIB), remembered(places)).adjustment == FOUND


@pytest.mark.parametrize("other", [Overrides(users=4), Overrides(context=8192)])
def test_another_wish_begins_with_the_flags_alone(places: Places, other: Overrides) -> None:
    assert recall(replace(THEN, overrides=other), remembered(places)).adjustment == Adjustment(
        options={"swap-space": False}, env={"A": "1"}
    )


def test_more_memory_is_tried_out_anew(places: Places) -> None:
    assert recall(replace(THEN, room_bytes=20 * GIB + GIB // 2), remembered(places)).adjustment == FOUND, (
        "half a GiB is no clear gain"
    )
    assert recall(replace(THEN, room_bytes=23 * GIB), remembered(places)).adjustment.context is None


@pytest.mark.parametrize(
    "other",
    [
        {"gpus": ("NVIDIA GeForce RTX 3090",)},
        {"gpus": ("NVIDIA GeForce RTX 4090",) * 2},
        {"gpus": ()},
        {"version": "0.33.0"},
        {"version": None},
        {"engine": "vllm-docker"},
        {"profile": "another"},
        {"contents": "fedcba9876543210"},
    ],
    ids=str,
)
def test_other_circumstances_know_nothing_of_it(places: Places, other: dict[str, object]) -> None:
    assert recall(replace(THEN, **other), remembered(places)).adjustment == NOTHING  # type: ignore[arg-type]


def test_the_last_word_counts(places: Places) -> None:
    remember(places, Remembered(THEN, Adjustment(context=4096)))
    assert recall(THEN, remembered(places)).adjustment == Adjustment(context=4096)
    remember(places, Remembered(THEN, NOTHING))
    assert recall(THEN, remembered(places)).adjustment == NOTHING


def test_lines_that_cannot_be_read_are_passed_over(places: Places) -> None:
    with places.healed.open("a") as handle:
        handle.write('{"where": 3}\nnot JSON\n')
    assert [entry.adjustment for entry in remembered(places)] == [FOUND]
