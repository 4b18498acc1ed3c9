"""Container images made from files of this machine: a Python with what it is linked to, and whatever else is asked for.

No registry is needed: `docker import` makes an image from a tar.
"""

from __future__ import annotations

import re
import subprocess
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

VLLM_IMAGE = "mscli-tests/vllm-cpu:v0.32.0"
# What a Python does not need to run, by the names of folders and files.
_LEFT_OUT = ("test", "site-packages", "__pycache__", "idlelib", "tkinter", "include", "share", "turtledemo")
_TOOLS = ("/bin/sh", "/bin/sleep", "/bin/cat", "/usr/bin/lscpu", "/usr/bin/uname")


def base_prefix(python: Path) -> Path:
    """The folder of the installation that a Python (perhaps of a virtual environment) belongs to."""
    said = subprocess.run([python, "-c", "import sys; print(sys.base_prefix)"], capture_output=True, text=True)
    return Path(said.stdout.strip())


def make_image(client: Sequence[str], image: str, python: Path, *more: Path, links: dict[str, str]) -> None:
    """Import an image with the Python that `python` is a name of, the folders `more`, and links (place -> target).

    `client`: how to call docker or podman. Everything lies where it lies on this machine; each folder's `bin` is on
    PATH.
    """
    prefix = base_prefix(python)
    folders = [prefix, *more]
    path = ":".join(["/opt/bin", *(f"{folder}/bin" for folder in more), f"{prefix}/bin", "/usr/bin", "/bin"])
    changes = ["--change", f"ENV PATH={path}", "--change", "ENV HOME=/root"]
    importing = subprocess.Popen(
        [*client, "import", *changes, "-", image],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert importing.stdin is not None
    assert importing.stdout is not None
    with tarfile.open(fileobj=importing.stdin, mode="w|") as tar:
        _fill(tar, folders, bare=prefix, links=links)
    importing.stdin.close()
    said = importing.stdout.read().decode()
    assert importing.wait(300) == 0, said


def make_vllm_image(client: Sequence[str], place: Path) -> str:
    """An image with the vLLM that tests/run_engines installs in `place`, made of its files; its name."""
    links = {"/opt/bin/vllm": str(place / "bin" / "vllm")}
    make_image(client, VLLM_IMAGE, place / "bin" / "python3", place, links=links)
    return VLLM_IMAGE


def _fill(tar: tarfile.TarFile, folders: Sequence[Path], bare: Path, links: dict[str, str]) -> None:
    binaries: list[Path] = [Path(tool) for tool in _TOOLS]
    for folder in folders:
        for path in _files(folder, without_packages=folder == bare):
            tar.add(path, str(path)[1:], recursive=False)
            if ".so" in path.name or path.parent.name == "bin":
                binaries.append(path)
    for library in sorted({*_libraries(binaries), *_TOOLS}):
        tar.add(Path(library).resolve(), library[1:], recursive=False)
    for place, target in links.items():
        link = tarfile.TarInfo(place[1:])
        link.type, link.linkname = tarfile.SYMTYPE, target
        tar.addfile(link)
    for place, mode in (("tmp", 0o1777), ("root", 0o700)):
        folder = tarfile.TarInfo(place)
        folder.type, folder.mode = tarfile.DIRTYPE, mode
        tar.addfile(folder)


def _files(folder: Path, without_packages: bool) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if (without_packages and entry.name in _LEFT_OUT) or entry.suffix in (".a", ".pyc"):
            continue
        yield entry
        if entry.is_dir() and not entry.is_symlink():
            yield from _files(entry, without_packages)


def _libraries(binaries: Iterable[Path]) -> set[str]:
    """What the binaries are linked to outside the folders that are taken whole, as the dynamic linker finds it."""
    names = [str(path) for path in binaries if path.is_file()]
    found: set[str] = set()
    for start in range(0, len(names), 200):
        said = subprocess.run(["ldd", *names[start : start + 200]], capture_output=True, text=True, check=False)
        found |= set(re.findall(r"(?:=> |^\s)(/(?:lib|usr/lib)\S*) \(0x", said.stdout, re.M))
    return found
