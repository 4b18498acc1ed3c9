"""What earlier starts really took, kept as one JSON line each, for the next plan to learn from."""

from __future__ import annotations

import json
from collections.abc import Sequence

from mscli.lifecycle.values import Mismatch, from_json, to_json
from mscli.paths import Places
from mscli.planning.learned import Observation

_KEPT = 1000


def load(places: Places) -> tuple[Observation, ...]:
    """The observations in order of time; lines that cannot be read are passed over, since they only refine."""
    try:
        lines = places.observations.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return ()
    found = []
    for line in lines[-_KEPT:]:
        try:
            found.append(from_json(Observation, json.loads(line)))
        except (ValueError, Mismatch):
            continue
    return tuple(found)


def store(places: Places, fresh: Sequence[Observation]) -> None:
    """Add observations at the end. A line is written at once, so that two starts do not mix theirs.

    Raises OSError when the state folder cannot be written.
    """
    if not fresh:
        return
    places.observations.parent.mkdir(parents=True, exist_ok=True)
    with places.observations.open("a") as handle:
        handle.write("".join(json.dumps(to_json(item)) + "\n" for item in fresh))
