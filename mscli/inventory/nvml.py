"""GPUs as the NVIDIA driver's library tells of them, through the pynvml bindings. Never through nvidia-smi."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from mscli.inventory.card import read_card
from mscli.inventory.fields import Fields, error_name
from mscli.inventory.inventory import Gpu, Link, Problem
from mscli.inventory.kernel import text_of
from mscli.inventory.topology import read_links

_MODULE_VERSION = re.compile(r"Kernel Module\s+(?:for \S+\s+)?(\d+(?:\.\d+)+)")
_FAILURES = {
    "LIBRARY_NOT_FOUND": "NVIDIA's libnvidia-ml.so.1 was not found: no NVIDIA driver is installed{inside}",
    "DRIVER_NOT_LOADED": "the NVIDIA kernel module is not loaded{inside}",
    "LIB_RM_VERSION_MISMATCH": "the NVIDIA library and the loaded kernel module are of different versions, "
    "as after a driver upgrade without a restart",
    "NO_PERMISSION": "this user may not talk to the NVIDIA driver (see who may open /dev/nvidia*)",
}
_INSIDE = {
    "container": ", or this container was started without its GPUs (docker run --gpus all)",
    "wsl": ", or not on the Windows side (WSL takes its library from /usr/lib/wsl/lib)",
}


@dataclass(frozen=True)
class Seen:
    """What one NVML session told. `failure`: why there was none."""

    driver: str | None = None
    cuda: str | None = None
    failure: Problem | None = None
    gpus: tuple[Gpu, ...] = ()
    links: tuple[Link, ...] = ()
    problems: tuple[Problem, ...] = ()


def look(proc: Path, surroundings: str) -> Seen:
    """One look through NVML: one nvmlInit, one nvmlShutdown. `proc`: the proc file system that belongs to the machine.

    Never raises for what the driver does; blocks as long as the driver takes (milliseconds; seconds to wake a GPU).
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Seen(failure=_failure(error, module_version(proc), surroundings))
    system = Fields(pynvml)
    try:
        seen = _read(system, proc)
    finally:
        system.read("shutdown", pynvml.nvmlShutdown)
    return replace(seen, problems=(*system.problems, *seen.problems))


def _read(system: Fields, proc: Path) -> Seen:
    nvml = system.nvml
    driver = system.read("driver", nvml.nvmlSystemGetDriverVersion)
    cuda = system.read("cuda", nvml.nvmlSystemGetCudaDriverVersion_v2)
    count = system.read("count", nvml.nvmlDeviceGetCount) or 0
    cards = [read_card(nvml, index, proc, alone=count == 1) for index in range(count)]
    links, problems = read_links(nvml, cards)
    return Seen(
        driver=driver,
        cuda=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
        gpus=tuple(card.gpu for card in cards),
        links=links,
        problems=problems,
    )


def module_version(proc: Path) -> str | None:
    """The version of the NVIDIA kernel module that is loaded, None without one."""
    found = _MODULE_VERSION.search(text_of(proc / "driver/nvidia/version"))
    return found[1] if found else None


def _failure(error: Exception, module: str | None, surroundings: str) -> Problem:
    """Why NVML did not start, for people, with what the kernel says beside it."""
    code = error_name(error)
    reason = _FAILURES.get(code, f"NVML did not start: {error}").format(inside=_INSIDE.get(surroundings, ""))
    beside = f"the loaded NVIDIA kernel module is {module}" if module else "there is no /proc/driver/nvidia/version"
    return Problem("nvml", code, f"{reason}; {beside}")
