"""How the time that a pattern takes grows with its text."""

from __future__ import annotations

import re
import time
from collections import deque


def cpu_s(pattern: re.Pattern[str], text: str) -> float:
    """Seconds of this thread to find every match."""
    begun = time.thread_time()
    deque(pattern.finditer(text), maxlen=0)
    return time.thread_time() - begun


def assert_linear(pattern: re.Pattern[str], pump: str, short: int, noise_s: float, least_s: float) -> None:
    """The text is `pump` again and again, `short` characters long and eight times that.

    What takes less than `noise_s` is fast whatever its growth; the short text counts as `least_s` at least.
    """
    took = cpu_s(pattern, pump * (8 * short // len(pump)))
    if took > noise_s:  # eight times the text, eight times the time; a square would take 64 times as long
        before = cpu_s(pattern, pump * (short // len(pump)))
        assert took < 24 * max(before, least_s), f"{pump!r} is read in more than linear time"
