"""What the machine itself shows, and by how much that raises or lowers each cause."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mscli.frozen import frozen

if TYPE_CHECKING:
    from mscli.inventory.inventory import Inventory


@frozen
class Facts:
    """The live facts that bear on a log of this machine. None: unknown.

    `nvml`: None when NVML answers, else NVML's name of its error. `capability`: the lowest compute capability of the
    GPUs, as (major, minor).
    """

    surroundings: str
    nvml: str | None
    gpus: int
    capability: tuple[int, int] | None
    mig: bool
    visible_devices: str | None
    disk_free_bytes: int | None
    lost: bool = False


def facts_of(seen: Inventory) -> Facts:
    """The facts of an inventory."""
    capabilities = [gpu.compute_capability for gpu in seen.gpus if gpu.compute_capability]
    lowest = min((tuple(map(int, text.split("."))) for text in capabilities), default=None)
    return Facts(
        surroundings=seen.host.surroundings,
        nvml=seen.nvml.code if seen.nvml else None,
        gpus=len(seen.gpus),
        capability=(lowest[0], lowest[1]) if lowest else None,
        mig=any(gpu.mig.mode == "on" for gpu in seen.gpus),
        visible_devices=seen.visible_devices,
        disk_free_bytes=seen.host.disk_free_bytes,
        lost=any(problem.code == "GPU_IS_LOST" for gpu in seen.gpus for problem in gpu.problems),
    )


# By how much the odds of a cause change. 1: the facts say nothing about it.
_ODDS: Mapping[str, Callable[[Facts], float]] = {
    "wsl": lambda facts: 4.0 if facts.surroundings == "wsl" else 0.1,
    "no_driver": lambda facts: _nvml(facts, "DRIVER_NOT_LOADED"),
    "nvml_mismatch": lambda facts: _nvml(facts, "LIB_RM_VERSION_MISMATCH"),
    "nvml_not_found": lambda facts: _nvml(facts, "LIBRARY_NOT_FOUND"),
    "cpu_fallback": lambda facts: 3.0 if facts.gpus else 0.5,
    "mig": lambda facts: 4.0 if facts.mig else 0.1,
    "xid": lambda facts: 4.0 if facts.lost else 1.0,
    "visible_devices": lambda facts: 0.3 if facts.visible_devices is None else 3.0,
    "nccl": lambda facts: 0.3 if facts.gpus == 1 else 1.0,
    "p2p": lambda facts: 0.1 if facts.gpus == 1 else 1.0,
    "compute_capability": lambda facts: 0.3 if facts.capability and facts.capability >= (8, 9) else 1.0,
    "disk_full": lambda facts: 3.0 if facts.disk_free_bytes is not None and facts.disk_free_bytes < 2**30 else 1.0,
}


def weighed(code: str, confidence: float, facts: Facts | None) -> float:
    """The confidence in a cause, its odds changed by what the machine shows."""
    if facts is None or code not in _ODDS:
        return confidence
    odds = _ODDS[code](facts) * confidence
    return odds / (1 - confidence + odds)


def _nvml(facts: Facts, error: str) -> float:
    """NVML's own error now settles it; NVML that works now speaks against it, but may have been mended since."""
    if facts.nvml == error:
        return 4.0
    return 0.4 if facts.nvml is None and facts.gpus else 1.0
