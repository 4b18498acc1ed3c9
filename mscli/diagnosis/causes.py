"""The closed list of causes: what each code means, what to do about it, how often it is right when it is named, and by
how much the machine's own facts raise or lower it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mscli.frozen import frozen

if TYPE_CHECKING:
    from mscli.inventory.inventory import Inventory


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
