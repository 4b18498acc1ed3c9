"""From how sure the signatures are to how often that is right, as `benchmarks/calibration.py` measured it."""

from __future__ import annotations

from bisect import bisect_right

from mscli.diagnosis.causes import read_data


def fitted(confidence: float) -> float:
    """How often a cause of this confidence, 0 to 1, was the right one: it rises with the confidence."""
    curve = read_data("calibration")
    at = min(bisect_right([said for said, _ in curve], confidence), len(curve) - 1)
    (said, right), (next_said, next_right) = curve[at - 1], curve[at]
    value: float = right + (next_right - right) * (confidence - said) / (next_said - said)
    return round(value, 2)
