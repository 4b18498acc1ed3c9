"""A download whose speed collapses is noticed although bytes keep coming."""

from __future__ import annotations

import pytest

from mscli.weights.progress import RateWatch

MIB = 2**20
Speeds = tuple[tuple[float, int], ...]


def told(*speeds: tuple[float, int]) -> list[str]:
    """What is said of a download that runs at these speeds, each in bytes a second for so many seconds."""
    watch, done, now, said = RateWatch(60.0), 0.0, 1000.0, []
    for speed, seconds in speeds:
        for _ in range(seconds):
            now, done = now + 1.0, done + speed
            if message := watch.look(int(done), now):
                said.append(message)
    return said


def test_a_speed_that_collapses_is_told_once_with_both_speeds() -> None:
    (message,) = told((50 * MIB, 120), (20_000, 200))

    assert "50 MiB/s" in message
    assert "KiB/s" in message


def test_a_speed_that_stays_collapsed_is_told_again_after_some_minutes() -> None:
    assert len(told((50 * MIB, 120), (20_000, 500))) == 2


STEADY: dict[str, Speeds] = {
    "steady": ((50 * MIB, 300),),
    "slower, but going": ((50 * MIB, 120), (4 * MIB, 300)),
    "slow from the start": ((200_000, 600),),
    "a short pause": ((50 * MIB, 120), (0, 5), (50 * MIB, 60)),
}


@pytest.mark.parametrize("speeds", STEADY.values(), ids=STEADY)
def test_other_speeds_are_not(speeds: Speeds) -> None:
    assert told(*speeds) == []
