"""The closed list of causes: what each code means, what to do about it, and how often it is right when it is named."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from mscli.frozen import frozen

START, REQUEST, WARNING = "start", "request", "warning"
UNKNOWN = "unknown"
LIKELY = 0.5  # from here on a cause counts as found


@frozen
class Cause:
    """Why an engine failed: a code of the closed list (`unknown` where nothing supports one), in words, with a remedy.

    `evidence`: lines of the log, the most telling first. `confidence`, 0 to 1: how sure it is the root cause. `scope`:
    START (the engine did not come up, or went down), REQUEST (it serves, and refused or failed one request) or WARNING
    (it serves, but slower or with less than planned).
    """

    code: str
    summary: str
    remedy: str
    evidence: tuple[str, ...] = ()
    confidence: float = 1.0
    scope: str = START


class Meaning(NamedTuple):
    """What a code means, what to do where no signature says anything closer, what follows from it, its scope, and the
    command that tells whether it is so ("": none does)."""

    summary: str
    remedy: str
    leads_to: frozenset[str]
    scope: str
    tells: str


class _Causes(Mapping[str, Meaning]):
    """The list, read from its file when it is first used."""

    def __getitem__(self, code: str) -> Meaning:
        return _meanings()[code]

    def __iter__(self) -> Iterator[str]:
        return iter(_meanings())

    def __len__(self) -> int:
        return len(_meanings())


CAUSES: Mapping[str, Meaning] = _Causes()


@lru_cache(maxsize=1)
def _meanings() -> Mapping[str, Meaning]:
    return {
        code: Meaning(
            row["summary"],
            row["remedy"],
            frozenset(row.get("leads_to", ())),
            row.get("scope", START),
            row.get("tells", ""),
        )
        for code, row in read_data("causes").items()
    }


@lru_cache(maxsize=32)
def any_pattern(name: str) -> str:
    """All patterns of `signatures/NAME.yaml` as one."""
    return "|".join(pattern for row in read_data(name) for pattern in row["patterns"])


@lru_cache(maxsize=32)
def read_data(name: str) -> Any:
    """What `signatures/NAME.yaml` holds."""
    import yaml

    text = (Path(__file__).parent / "signatures" / f"{name}.yaml").read_text(encoding="utf-8")
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def fitted(confidence: float) -> float:
    """How often a cause of this confidence, 0 to 1, was the right one: it rises with the confidence."""
    curve = read_data("calibration")
    at = min(bisect_right([said for said, _ in curve], confidence), len(curve) - 1)
    (said, right), (next_said, next_right) = curve[at - 1], curve[at]
    value: float = right + (next_right - right) * (confidence - said) / (next_said - said)
    return round(value, 2)
