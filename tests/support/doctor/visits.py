"""A visit of the doctor as a user sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Found = dict[str, Any]


@dataclass(frozen=True)
class Visit:
    """What one visit of the doctor found."""

    code: int
    findings: Sequence[Found]
    text: str
    seconds: float

    def of(self, check: str) -> list[Found]:
        return [found for found in self.findings if found["id"] == check]

    def bad(self, check: str) -> Found:
        """The one finding of a check that is a warning or a failure."""
        found = [each for each in self.of(check) if each["status"] not in ("ok", "skipped")]
        assert len(found) == 1, f"{check}: {self.of(check)}"
        return found[0]

    def good(self, check: str) -> Found:
        """The one finding of a check with which all is well."""
        found = self.of(check)
        assert [each["status"] for each in found] == ["ok"], f"{check}: {found}"
        return found[0]


Doctor = Callable[..., Visit]
