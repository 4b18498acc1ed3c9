from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mscli.catalog.types import parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("14.3 GB", 14_300_000_000),
        ("14.3GB", 14_300_000_000),
        ("13.35 GiB", 14_334_453_350),
        ("1 GiB", 1 << 30),
        ("1 GB", 10**9),
        ("512 MiB", 512 << 20),
        ("512 kB", 512_000),
        ("1_000 B", 1000),
        ("2 TB", 2 * 10**12),
    ],
)
def test_decimal_and_binary_units_are_kept_apart(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["14 G", "14gb", "14 Gib", "14 GIB", "14.3", "GB", "-1 GB", "1e3 GB", "1,5 GB", "", "1  GB"]
)
def test_a_unit_that_could_mean_either_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"unknown unit|expected bytes or a size"):
        parse_size(text)


def test_the_refusal_gives_both_meanings() -> None:
    with pytest.raises(ValueError, match="write GB for 1,000,000,000 bytes or GiB for 1,073,741,824"):
        parse_size("14 G")


@given(st.integers(0, 10**6), st.integers(0, 999))
def test_fractions_are_exact(whole: int, thousandths: int) -> None:
    assert parse_size(f"{whole}.{thousandths:03} GB") == whole * 10**9 + thousandths * 10**6
