"""Frozen values to JSON and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from mscli.frozen import frozen
from mscli.instances.json_values import Mismatch, from_json, to_json


@frozen
class Inner:
    count: int
    share: float | None = None


@frozen
class Outer:
    name: str
    path: Path
    inner: tuple[Inner, ...]
    pair: tuple[int, int]
    settings: Mapping[str, str | int | float | bool]


VALUE = Outer("a", Path("/x/y"), (Inner(1, 0.5), Inner(2)), (3, 4), {"on": True, "util": 0.9, "n": 1, "t": "x"})


def test_round_trip_through_text() -> None:
    assert from_json(Outer, json.loads(json.dumps(to_json(VALUE)))) == VALUE


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"name": 1}, "name: expected str, not int"),
        ({"inner": [{"count": "1"}]}, r"inner\[0\].count: expected int"),
        ({"inner": [{"count": True}]}, r"inner\[0\].count: expected int, not bool"),
        ({"inner": {"count": 1}}, "inner: expected a list"),
        ({"pair": [1]}, "pair: expected 2 items, not 1"),
        ({"path": None}, "path: expected Path, not nothing"),
        ({"settings": []}, "settings: expected an object"),
        ({"settings": {"a": None}}, "settings.a: "),
        ({"newer": 1}, "newer: unknown key"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change: dict[str, object], where: str) -> None:
    with pytest.raises(Mismatch, match=where):
        from_json(Outer, {**to_json(VALUE), **change})


def test_a_missing_key_is_named() -> None:
    data = to_json(VALUE)
    del data["path"]
    with pytest.raises(Mismatch, match="path: missing"):
        from_json(Outer, data)


def test_defaults_fill_what_an_older_record_lacks() -> None:
    assert from_json(Inner, {"count": 3}) == Inner(3)
