"""Checks of the host: RAM, CPU, limits."""

from __future__ import annotations

from collections.abc import Iterator

from mscli.doctor.live.check import Check, Seen, ok, warn
from mscli.doctor.live.scene import Scene

GIB = 2**30
# mscli, an engine's Python and its libraries, before any weight is in memory.
_LEAST_RAM = 4 * GIB


def _ram(scene: Scene) -> Iterator[Seen]:
    host = scene.inventory.host
    free, total = host.ram_available_bytes / GIB, host.ram_total_bytes / GIB
    seen = f"{free:.1f} of {total:.1f} GiB of RAM are available"
    if host.ram_available_bytes < _LEAST_RAM:
        yield warn("host_ram", seen, "Stop what uses it; engines that run out of RAM are killed without a word.")
    else:
        yield ok(seen)


CHECKS = (Check("host.ram", _ram),)
