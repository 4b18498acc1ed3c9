"""Waiting for calls that cannot be given a deadline of their own: name lookups, libraries that try again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def within(seconds: float, call: Callable[[], T]) -> T:
    """What `call` returns or raises; TimeoutError when that takes longer. The call is then left to itself, in a thread
    that ends with the program."""
    results: list[T] = []
    faults: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as fault:  # handed to the caller's thread, which judges it
            faults.append(fault)

    worker = threading.Thread(target=run, name="patience", daemon=True)
    worker.start()
    worker.join(max(seconds, 0.0))
    if faults:
        raise faults[0]
    if not results:
        raise TimeoutError(f"no answer within {seconds:.1f} s")
    return results[0]
