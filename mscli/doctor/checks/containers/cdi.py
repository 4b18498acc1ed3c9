"""CDI specifications: what they promise to a container, held against what is on this machine.

Read line by line for the few keys that matter. nvidia-ctk writes YAML or JSON of hundreds of lines, which a parser in
Python takes a tenth of a second for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mscli.inventory.kernel import text_of

# The later goes before the earlier where both name a device.
FOLDERS = ("etc/cdi", "var/run/cdi")
KIND = "nvidia.com/gpu"

_KIND = re.compile(r"\"?\bkind\"?\s*:\s*[\"']?([\w./-]+)")
_PATHS = re.compile(r"\"?\b(?:path|hostPath)\"?\s*:\s*[\"']?(/[^\"'\s,\]}]+)")
_DRIVER = re.compile(r"/lib(?:cuda|nvidia)[\w-]*\.so\.(\d{3,}\.\d+(?:\.\d+)?)$")
_GPU = re.compile(r"/dev/nvidia(\d+)$")


@dataclass(frozen=True)
class Spec:
    """One specification of NVIDIA GPUs. `missing`: files and devices that it names and that are not here.

    `drivers`: releases of the driver's libraries by their names. `gpus`: the numbers of its GPU devices. `fault`: why
    the file cannot be read as a specification.
    """

    path: Path
    missing: tuple[str, ...] = ()
    drivers: frozenset[str] = frozenset()
    gpus: frozenset[int] = frozenset()
    fault: str | None = None


def specs(root: Path) -> tuple[Spec, ...]:
    """The specifications of NVIDIA GPUs below `root`, which stands for /, the one that counts last."""
    return tuple(spec for folder in FOLDERS for path in _files(root / folder) if (spec := _spec(path, root)))


def _files(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(path for path in folder.iterdir() if path.suffix in (".yaml", ".yml", ".json"))
    except OSError:
        return


def _spec(path: Path, root: Path) -> Spec | None:
    text = text_of(path)
    kind = _KIND.search(text)
    if kind and kind[1] != KIND:
        return None
    if kind is None:
        return Spec(path, fault="it names no kind of device") if "nvidia" in path.name else None
    if path.suffix == ".json" and (fault := _json_fault(text)):
        return Spec(path, fault=fault)
    named = tuple(dict.fromkeys(_PATHS.findall(text)))
    missing = tuple(each for each in named if not _there(root, each))
    drivers = frozenset(found[1] for each in named if (found := _DRIVER.search(each)))
    gpus = frozenset(int(found[1]) for each in named if (found := _GPU.search(each)))
    return Spec(path, missing, drivers, gpus)


def _json_fault(text: str) -> str | None:
    try:
        json.loads(text)
    except ValueError as fault:
        return f"it is no JSON: {fault}"
    return None


def _there(root: Path, named: str) -> bool:
    """Whether it is on this machine; what this user may not look at counts as being there."""
    try:
        (root / named.lstrip("/")).stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True
