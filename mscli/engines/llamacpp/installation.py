"""Where llama.cpp is, and how to get its official release into mscli's own folder: fetched, checked against the
published hash, unpacked. No root.

The release is the build for Vulkan, which also holds the CPU back ends: llama.cpp publishes no Linux build for CUDA.
Whoever wants CUDA compiles llama.cpp or takes a package of it; its llama-server on PATH then goes before this one.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from mscli.engines.engine import Installation, Offer
from mscli.engines.installed import version_answer
from mscli.errors import Code, MscliError
from mscli.paths import places, releases
from mscli.weights.progress import Listener, Note

NAME = "llama.cpp"
PROGRAM = "llama-server"
WHEEL = "xllamacpp"
# What a llama-server is, and what to do when it does not run.
ON_PATH = (
    "the first llama-server on PATH",
    "Fix it, or take it off PATH to use the embedded server (pip install 'mscli[embedded]').",
)
IN_OWN_FOLDER = (
    "the llama-server that mscli installs",
    "It is built for Ubuntu and may need newer system libraries than are here. Use the embedded server (pip install "
    "'mscli[embedded]'; remove mscli's copy if it is in place), or put a llama-server of your own on PATH.",
)

# The build whose command line was tested here.
VERSION = "b11669"
# What the archive has, and what it takes of the disk together with its unpacked content.
ARCHIVE_BYTES, ROOM_BYTES = 5 * 10**7, 3 * 10**8
# Checksums stand only in GitHub's REST API, which names the archives and where they lie as well.
RELEASES = "https://api.github.com/repos/ggml-org/llama.cpp/releases/tags"
MACHINES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}
PAGE = "https://github.com/ggml-org/llama.cpp/releases"
OFFLINE = "put another machine's llama-server on PATH, or install the wheel: pip install 'mscli[embedded]'."
VULKAN = (
    "this build reaches the GPU through Vulkan (it needs libvulkan.so.1 and the driver's Vulkan part), else it runs on "
    "the CPU. For CUDA compile llama.cpp or install a package of it, and put its llama-server on PATH: it is then used"
)


def locate() -> Installation:
    """A `llama-server` on PATH, else mscli's own, else the wheel.

    Waits at most VERSION_TIMEOUT_S for the program to tell its version. Raises ENGINE_MISSING when there is none,
    and when the first of them does not run: whoever put it there wants it used.
    """
    if path := shutil.which(PROGRAM):
        return _program(Path(path).absolute(), "program", ON_PATH)
    if (own := own_folder() / PROGRAM).is_file():
        return own_program(own)
    return _wheel()


def offer(device: str, _cuda: str | None) -> Offer:
    """What `install` would put here. Raises ENGINE_UNSUPPORTED where there is no archive, or where it would not reach
    the GPU."""
    name = f"llama-{VERSION}-bin-ubuntu-vulkan-{_machine(platform.machine())}.tar.gz"
    if device == "gpu" and not _has_vulkan():
        raise MscliError(
            Code.ENGINE_UNSUPPORTED,
            "the build of llama.cpp that mscli installs reaches a GPU through Vulkan, and libvulkan.so.1 is not here",
            "Install it (Debian, Ubuntu: apt install libvulkan1), or put a llama-server with CUDA on PATH.",
        )
    source = f"{releases(NAME, RELEASES)}/{VERSION} ({name})"
    return Offer(NAME, f"llama.cpp {VERSION} (Vulkan)", source, ARCHIVE_BYTES, ROOM_BYTES, own_folder())


def _has_vulkan() -> bool:
    import ctypes

    try:
        ctypes.CDLL("libvulkan.so.1")
    except OSError:
        return False
    return True


def install(
    listener: Listener,
    *,
    version: str = VERSION,
    base: str | None = None,
    folder: Path | None = None,
    machine: str | None = None,
) -> Installation:
    """Put a build of llama.cpp ("b11669") into `folder` (default: mscli's own) in place of what is there; returns it.

    Goes through the proxy that the environment names, and on from what an earlier call has fetched. The new program is
    asked for its version before it replaces anything. Raises as archive.put does, USAGE for a version that is no build,
    ENGINE_UNSUPPORTED for a machine that no archive is made for, and ENGINE_MISSING where the program does not run.
    """
    from mscli.engines.archive import Archive, Publisher, put, read

    build, kind = _build(version), _machine(machine or platform.machine())
    publisher = Publisher(PAGE, OFFLINE)
    place = folder or own_folder()
    partial = place.with_name(f"{place.name}-{build}-{kind}.partial")
    url = f"{(base or releases(NAME, RELEASES)).rstrip('/')}/{build}"
    name = f"llama-{build}-bin-ubuntu-vulkan-{kind}.tar.gz"
    address, sha256 = _published(read(url, publisher), url, name)
    archive = Archive(publisher, address, sha256, PROGRAM)
    put(archive, partial, place, listener, own_program)
    listener.note(Note("vulkan_build", VULKAN))
    return own_program(place / PROGRAM)


def _build(version: str) -> str:
    if not re.fullmatch(r"b?\d+", version):
        raise MscliError(
            Code.USAGE,
            f"{version!r} is no build of llama.cpp",
            f"Builds are numbers: mscli engines install llama.cpp=={VERSION}. Which there are: {PAGE}",
        )
    return f"b{version.removeprefix('b')}"


def _machine(name: str) -> str:
    if found := MACHINES.get(name.lower()):
        return found
    raise MscliError(
        Code.ENGINE_UNSUPPORTED,
        f"llama.cpp publishes no Linux release with Vulkan for {name}",
        "It publishes x64 and arm64. Compile it, and put llama-server on PATH.",
    )


def _published(release: str, url: str, name: str) -> tuple[str, str]:
    """Address and sha256 of the archive `name`, by what the API says: {"assets": [{name, digest, address}]}."""
    try:
        assets = {asset["name"]: asset for asset in json.loads(release)["assets"]}
        found = assets.get(name)
        digest, address = (found["digest"] or "", found["browser_download_url"]) if found else ("", "")
    except (ValueError, KeyError, TypeError) as fault:
        raise _unusable(f"{url} does not answer as GitHub does", "A proxy's page?", "network_proxy") from fault
    if found is None:
        raise _unusable(f"the release at {url} has no {name}", f"Take another build: {PAGE}")
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise _unusable(f"{url} states no sha256 of {name}", f"Take a newer build: {PAGE}")
    return address, digest.removeprefix("sha256:")


def _unusable(seen: str, hint: str, cause: str = "model_not_found") -> MscliError:
    return MscliError(Code.DOWNLOAD_FAILED, seen, hint, {"cause": cause})


def own_folder() -> Path:
    """Where mscli installs llama.cpp."""
    return places().engines / NAME


def own_program(path: Path) -> Installation:
    """The llama-server at `path`, installed by mscli, asked for its version. Raises ENGINE_MISSING if it cannot run."""
    return _program(path, "own", IN_OWN_FOLDER)


def _program(path: Path, kind: str, wording: tuple[str, str]) -> Installation:
    """The llama-server at `path`, asked for its version. `wording`: what it is and what to do if it does not run."""
    said = version_answer(path, *wording)
    version = next((line for line in said.splitlines() if line.startswith("version: ")), None)
    version = version and version.removeprefix("version: ")
    vulkan = True if kind == "own" else None
    return Installation(NAME, (str(path),), version, kind, path, gpu=vulkan, cpu=True)


def _wheel() -> Installation:
    """The wheel in this Python environment. It is not imported, and its version is read off its metadata's folder:
    importlib.metadata alone would take 15 ms of every start."""
    found = find_spec(WHEEL)
    if found is None or found.origin is None:
        raise MscliError(
            Code.ENGINE_MISSING,
            f"llama.cpp was not found: no llama-server on PATH or in {own_folder()}, no {WHEEL} wheel in {sys.prefix}",
            "pip install 'mscli[embedded]', mscli engines install llama.cpp (GPUs through Vulkan), or put a "
            "llama-server of your own on PATH.",
        )
    package = Path(found.origin).parent
    metadata = next(package.parent.glob(f"{WHEEL}-*.dist-info"), None)
    version = metadata.name.removeprefix(f"{WHEEL}-").removesuffix(".dist-info") if metadata else None
    # wheels with and without GPU code bear one name and one version
    return Installation(
        NAME, (sys.executable, "-m", "mscli.engines.llamacpp.embedded"), version, "wheel", package, cpu=True
    )
