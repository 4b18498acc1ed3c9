"""Faults that the hub shows: where in which file, how often, and what happens there."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

CUT, STALL, CORRUPT, STATUS, WHOLE, WRONG_RANGE = "cut", "stall", "corrupt", "status", "whole", "wrong-range"
API = "<api>"


@dataclass
class Fault:
    """`kind` strikes GETs of files whose name matches `file` and whose range holds byte `at`, `times` times (or ever).

    cut closes the connection at that byte, stall sends no more, corrupt changes the byte, status answers `status` with
    `headers`, whole ignores the range asked for, wrong-range sends another. `file` API: the metadata, `at` is ignored.
    """

    kind: str
    file: str = "*"
    at: int = 0
    times: int | None = 1
    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    struck: int = 0


class Faults:
    """The faults of a hub, used up as they strike; safe to ask from many threads."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def strike(self, kinds: tuple[str, ...], file: str, start: int = 0, end: int = 1) -> Fault | None:
        """The first fault of these kinds within bytes `start` to `end` of `file`, counted as struck."""
        with self._lock:
            hits = [fault for fault in self._faults if fault.kind in kinds and _hits(fault, file, start, end)]
            if not hits:
                return None
            first = min(hits, key=lambda fault: fault.at)
            first.struck += 1
            return first


def _hits(fault: Fault, file: str, start: int, end: int) -> bool:
    left = fault.times is None or fault.struck < fault.times
    where = file == API if fault.file == API else fnmatchcase(file, fault.file) and start <= fault.at < end
    return left and where
