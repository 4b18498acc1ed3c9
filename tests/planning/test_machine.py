"""Machines that are not here, by their cards' names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.planning.planned import facts, on
from support.refused import refused

from mscli.errors import Code, MscliError
from mscli.planning.described_machine import MOST_CARDS, find_card, machine, read_machine
from mscli.planning.plan import GIB

WORDS = (
    "2",
    "64",
    "999999999999",
    "x",
    "×",
    "*",
    " ",
    "+",
    ",",
    "RTX",
    "4090",
    "H100",
    "ti",
    "GB",
    "NVIDIA",
    "0",
    "-1",
)
VALUES = st.none() | st.integers() | st.floats() | st.text(max_size=12) | st.sampled_from(
    ("RTX 4090", "2x H100", "24 GiB", "1e9", "-3 GB", "9" * 400, "{a: b}", "*x", "!!python/object:x")
)  # fmt: skip
DOCUMENTS = st.dictionaries(st.sampled_from(("gpus", "free", "used", "ram", "more")), VALUES, max_size=5).map(
    lambda keys: "".join(f"{key}: {value}\n" for key, value in keys.items()).encode(errors="replace")
)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("2x RTX 4090", ["NVIDIA GeForce RTX 4090"] * 2),
        ("2 x rtx4090", ["NVIDIA GeForce RTX 4090"] * 2),
        ("RTX 4090 + RTX 3060", ["NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 3060"]),
        ("8xH100", ["NVIDIA H100 80GB HBM3"] * 8),
        ("a100 40gb", ["NVIDIA A100-SXM4-40GB"]),
        ("NVIDIA GeForce RTX 5090", ["NVIDIA GeForce RTX 5090"]),
        ("rtx 6000 ada", ["NVIDIA RTX 6000 Ada Generation"]),
        ("L40S", ["NVIDIA L40S"]),
        ("t4", ["Tesla T4"]),
        ("4060 ti", ["NVIDIA GeForce RTX 4060 Ti"]),
    ],
)
def test_names_are_matched_leniently(text: str, names: list[str]) -> None:
    assert [device.name for device in on(text).devices] == names


@pytest.mark.parametrize("name", sorted(facts()))
def test_every_card_is_found_by_its_own_name(name: str) -> None:
    assert find_card(name, facts()).name == name


@pytest.mark.parametrize(
    ("text", "nearest"), [("RTX 4091", "RTX 409"), ("H101", "H100"), ("", "Write it"), ("0x H100", "Write it")]
)
def test_unknown_cards_name_the_nearest(text: str, nearest: str) -> None:
    with pytest.raises(MscliError) as caught:
        on(text)
    assert nearest in caught.value.hint


@pytest.mark.parametrize("text", ["1000000x H100", "65x H100", "40x H100 + 40x A100", f"{'9' * 5000}x H100"])
def test_a_machine_that_nobody_has_is_refused_at_once(text: str) -> None:
    with pytest.raises(MscliError, match="more than 64 GPUs"):
        on(text)


def test_an_ambiguous_name_lists_what_it_could_mean() -> None:
    with pytest.raises(MscliError, match="several GPUs"):
        on("RTX PRO Blackwell")


def test_free_memory_and_ram_can_be_stated() -> None:
    where = on("2x RTX 4090", free=20 * GIB, ram=16 * GIB)
    assert [device.free_bytes for device in where.devices] == [20 * GIB] * 2
    assert where.host.ram_available_bytes == 16 * GIB
    assert not where.problems


def test_assumed_ram_is_said() -> None:
    assert on("RTX 4090").problems[0].code == "ASSUMED"


def test_free_memory_never_exceeds_the_card() -> None:
    (device,) = on("RTX 4090", free=500 * GIB).devices
    assert device.total_bytes is not None
    assert device.free_bytes is not None
    assert device.free_bytes < device.total_bytes


@example(text="00X64")
@given(text=st.text(max_size=40) | st.lists(st.sampled_from(WORDS), max_size=8).map("".join))
def test_any_words_are_a_machine_or_wrong_use(text: str) -> None:
    fault = refused(lambda: on(text))
    assert fault is None or fault.code == Code.USAGE
    assert fault or 1 <= len(on(text).devices) <= MOST_CARDS


@given(content=st.binary(max_size=80) | st.text(max_size=80).map(str.encode) | DOCUMENTS)
def test_a_machine_file_of_anything_is_read_or_names_the_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "machine.yaml"
    path.write_bytes(content)
    fault = refused(lambda: read_machine(path))
    assert fault is None or fault.code == Code.PROFILE_INVALID
    assert fault is None or re.search(r"machine\.yaml:[0-9]+: ", fault.message)


def test_a_card_of_no_list_is_described_by_its_memory_and_compute_capability() -> None:
    there = machine("2x 24 GB 8.6", facts())
    assert [(each.name, each.total_bytes, each.compute_capability) for each in there.devices] == [
        ("GPU of 24 GB", 24 << 30, "8.6")
    ] * 2
    assert [each.name for each in machine("RTX 4090 x2", facts()).devices] == ["NVIDIA GeForce RTX 4090"] * 2
