"""An immutable value: made, compared and shown as a dataclass is, also for whoever uses `dataclasses` on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from mscli import frozen
from mscli.frozen import field


@frozen.frozen
class Card:
    name: str
    gib: float = 24.0
    notes: Mapping[str, str] = field(default_factory=dict)
    seen: int = field(default=0, compare=False, repr=False)


@frozen.frozen
class Named(Card):
    label: str = field(default="", kw_only=True)
    slots: tuple[Card, ...] = ()


# An `__init__` is another one when it has been called some times.
OFTEN = range(8)


def test_values_are_as_given_or_by_default_however_often_one_is_made() -> None:
    for _ in OFTEN:
        made = Named("a", 16.0, slots=(Card("b"),), label="x")
        assert (made.name, made.gib, made.notes, made.seen, made.label, made.slots) == (
            "a", 16.0, {}, 0, "x", (Card("b"),),
        )  # fmt: skip


def test_each_value_gets_a_default_of_its_own() -> None:
    for _ in OFTEN:
        assert Card("a").notes is not Card("a").notes


@pytest.mark.parametrize(
    ("args", "named"),
    [((), {}), (("a", 1.0, {}, 0, 0), {}), (("a",), {"name": "a"}), (("a",), {"nmae": 1}), (("a",), {"label": "x"})],
)
def test_wrong_arguments_are_refused_however_often_one_is_made(args: tuple[Any, ...], named: dict[str, Any]) -> None:
    for _ in OFTEN:
        with pytest.raises(TypeError, match=r"Card\.__init__\(\)"):
            Card(*args, **named)


def test_what_only_a_keyword_sets_is_no_place() -> None:
    for _ in OFTEN:
        with pytest.raises(TypeError):
            Named("a", 1.0, {}, 0, (), "label")  # type: ignore[misc]


def test_it_is_not_changed_later() -> None:
    made: Any = Card("a")
    with pytest.raises(AttributeError, match="Card is not changed after it was made"):
        made.name = "b"
    with pytest.raises(AttributeError):
        del made.name


def test_equal_where_the_compared_fields_are() -> None:
    assert Card("a", seen=1) == Card("a", seen=2) != Card("b")
    assert Card("a") != Named("a")
    assert len({(Card("a", notes=()), 1), (Card("a", notes=()), 1)}) == 1  # type: ignore[arg-type]
    assert repr(Card("a", seen=1)) == "Card(name='a', gib=24.0, notes={})"


def test_as_a_dict_with_what_is_inside() -> None:
    made = Named("a", slots=(Card("b", notes={"k": "v"}),))
    inner = {"name": "b", "gib": 24.0, "notes": {"k": "v"}, "seen": 0}
    assert frozen.asdict(made) == {
        "name": "a", "gib": 24.0, "notes": {}, "seen": 0, "label": "", "slots": (inner,),
    } == dataclasses.asdict(made)  # fmt: skip


def test_dataclasses_understands_it() -> None:
    assert dataclasses.is_dataclass(Card)
    assert frozen.is_frozen(Card)
    assert not frozen.is_frozen("text")
    assert [one.name for one in dataclasses.fields(Named)] == [one.name for one in frozen.fields(Named)]
    assert dataclasses.replace(Card("a"), gib=8.0) == frozen.replace(Card("a"), gib=8.0) == Card("a", 8.0)
    with pytest.raises(TypeError):
        frozen.replace(Card("a"), nmae="b")


def test_a_pattern_takes_the_fields_in_order() -> None:
    match Card("a", 8.0):
        case Card(name, gib):
            assert (name, gib) == ("a", 8.0)
