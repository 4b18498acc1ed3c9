"""vLLM in mscli's own Python environment: the version asked for, beside packages that it gets on with."""

from __future__ import annotations

import shutil
from pathlib import Path

from mscli.engines.engine import Installation
from mscli.engines.python_environment import make_environment
from mscli.engines.vllm.installation import installation, own_environment
from mscli.engines.vllm.pairs import pins
from mscli.errors import Code, MscliError
from mscli.inventory.detect import detect
from mscli.paths import hub_cache
from mscli.weights.progress import Listener, Note
from mscli.weights.room import check_room

# The newest version that mscli's flags were read in and that it was run with.
VERSION = "0.32.0"
# torch with its CUDA libraries unpacks to 8 to 10 GB, and the installer keeps the wheels meanwhile.
ROOM_BYTES = 15 * 10**9


def install(
    listener: Listener, *, version: str = VERSION, cuda: str | None = None, folder: Path | None = None
) -> Installation:
    """Install vLLM `version` from PyPI into `folder` (default: mscli's own) and return it; with uv where there is one.

    `cuda`: what the driver offers ("12.8"), by default what it says itself. uv chooses the torch build for it; pip
    takes the one that PyPI carries, and whether that suits an older driver is not known beforehand. Blocks for
    gigabytes. Raises ENGINE_UNSUPPORTED where no NVIDIA driver answers, DISK_FULL, and DOWNLOAD_FAILED with the
    installer's last words; its whole output is in `folder`.log.
    """
    place = folder or own_environment()
    offered = cuda or _offered()
    check_room(place.parent, ROOM_BYTES, f"vLLM {version}")
    has_uv = shutil.which("uv") is not None
    if not has_uv:
        listener.note(
            Note("unchecked", f"without uv on PATH pip takes PyPI's torch, made for one CUDA; the driver has {offered}")
        )
    backend = ("--torch-backend=auto",) if has_uv else ()
    make_environment(place, (f"vllm=={version}", *pins(version), *backend), listener)
    return installation(place / "bin" / "vllm", "own")


def _offered() -> str:
    """The CUDA version that the driver offers. Raises ENGINE_UNSUPPORTED where there is none."""
    offered = detect(hub_cache()).cuda
    if offered is None:
        raise MscliError(
            Code.ENGINE_UNSUPPORTED,
            "no NVIDIA driver answers here, and vLLM's packages need one",
            "See what is missing: mscli gpus. Without a GPU, profiles on llama.cpp run: mscli profiles",
            {"cause": "no_driver"},
        )
    return offered
