"""What earlier starts really took, kept for the next plan to learn from."""

from __future__ import annotations

from collections.abc import Sequence

from mscli.lifecycle import journal
from mscli.paths import Places
from mscli.planning.learned import Observation


def load(places: Places) -> tuple[Observation, ...]:
    """The observations in order of time."""
    return journal.load(places.observations, Observation)


def store(places: Places, fresh: Sequence[Observation]) -> None:
    """Add observations at the end. Raises OSError when the state folder cannot be written."""
    journal.store(places.observations, fresh)
