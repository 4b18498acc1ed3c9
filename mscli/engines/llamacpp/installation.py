"""Where llama.cpp is, and how to get its official release into mscli's own folder: fetched, checked against the
published hash, unpacked. No root.

Which of the release's builds: that with CUDA where the driver, the GPUs and the system's glibc allow it, else that with
Vulkan, which also holds the CPU back ends.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from mscli.engines.engine import Installation, Offer
from mscli.engines.installed import first_for_gpu, glibc, gpu_code, version_answer
from mscli.errors import Code, MscliError
from mscli.frozen import frozen, replace
from mscli.inventory.inventory import Inventory
from mscli.paths import hub_cache, on_path, places, releases
from mscli.weights.progress import Listener, Note

NAME = "llama.cpp"
PROGRAM = "llama-server"
WHEEL = "xllamacpp"
# What a llama-server is, and what to do when it does not run.
ON_PATH = (
    "the first llama-server on PATH",
    "Fix it, or remove it from PATH to use the embedded server (pip install 'mscli[embedded]').",
)
IN_OWN_FOLDER = (
    "the llama-server that mscli installs",
    "It is built for Ubuntu and may need newer system libraries. Use the embedded server (pip install "
    "'mscli[embedded]'; remove mscli's copy if it is in place), or put your own llama-server on PATH.",
)

# The build whose command line was tested here.
VERSION = "b11669"
# Checksums stand only in GitHub's REST API, which names the archives and where they lie as well.
RELEASES = "https://api.github.com/repos/ggml-org/llama.cpp/releases/tags"
MACHINES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}
PAGE = "https://github.com/ggml-org/llama.cpp/releases"
OFFLINE = "put another machine's llama-server on PATH, or install the wheel: pip install 'mscli[embedded]'."
VULKAN_NOTE = (
    "this build reaches the GPU through Vulkan (it needs libvulkan.so.1 and the driver's Vulkan part), else it runs on "
    "the CPU. A llama-server with CUDA on PATH takes precedence"
)
Version = tuple[int, ...]


@frozen
class Build:
    """One kind of the project's Linux archives. `archive`: its name, after llama-<tag>-bin-, as a pattern; `cuda`: the
    CUDA that it is built with (0 0: none) and whose libraries lie in an archive beside it; `glibc`: the oldest it runs
    on. `least`: the lowest compute capability that it has code for; `native`: those it has machine code for, while the
    driver must compile for others, which takes one of the same CUDA or newer."""

    name: str
    archive: str
    cuda: Version
    glibc: Version
    machines: tuple[str, ...]
    download_bytes: int
    room_bytes: int
    least: Version = ()
    native: tuple[Version, ...] = ()


# Archives and glibc: .github/workflows/release.yml (CUDA in ubuntu24.04 containers, Vulkan for x64 on 22.04); machine
# code: ggml/src/ggml-cuda/CMakeLists.txt (50 to 80 and 90 only as PTX). Bytes: those of b11026, the CUDA libraries' by
# the wheels of the same libraries.
BUILDS = (
    Build(
        "CUDA 13", r"ubuntu-cuda-13\.\d+", (13, 4), (2, 39), ("x64", "arm64"), 65 * 10**7, 3 * 10**9, (7, 5),
        ((8, 6), (8, 7), (8, 9), (12, 0), (12, 1)),
    ),
    Build(
        "CUDA 12", r"ubuntu-cuda-12\.\d+", (12, 8), (2, 39), ("x64",), 75 * 10**7, 3 * 10**9, (5, 0),
        ((8, 6), (8, 7), (8, 9), (12, 0)),
    ),
    Build("Vulkan", "ubuntu-vulkan", (0, 0), (2, 35), ("x64", "arm64"), 5 * 10**7, 3 * 10**8),
)  # fmt: skip
VULKAN = BUILDS[-1]


def locate() -> Installation:
    """A `llama-server` on PATH, else mscli's own, else the wheel.

    Waits at most VERSION_TIMEOUT_S for the program to tell its version. Raises ENGINE_MISSING when there is none,
    and when the first of them does not run: whoever put it there wants it used.
    """
    return _with_gpu_code(next(_copies()))


def locate_for(device: str) -> Installation:
    """The first of them for the CPU; for a GPU the first that may have GPU code. Waits and raises as `locate` does."""
    if device != "gpu":
        return next(_copies())
    return first_for_gpu(map(_with_gpu_code, _copies()), _for_the_cpu)


def _for_the_cpu(passed: list[Path]) -> MscliError:
    return MscliError(
        Code.ENGINE_MISSING,
        f"llama.cpp with GPU code was not found: {' and '.join(map(str, passed))} "
        f"{'is' if len(passed) == 1 else 'are'} built for the CPU",
        f"Install a build for this GPU: mscli engines install {NAME}. Or put a llama-server with CUDA on PATH.",
    )


def _copies() -> Iterator[Installation]:
    """Every copy that is here, in the order of preference. Raises ENGINE_MISSING at the end, as `locate` does."""
    if path := on_path(PROGRAM):
        yield _program(Path(path).absolute(), "program", ON_PATH)
    if (own := own_folder() / PROGRAM).is_file():
        yield _program(own, "own", IN_OWN_FOLDER)
    yield _wheel()


def _with_gpu_code(found: Installation) -> Installation:
    if found.kind == "wheel":
        code = gpu_code(*sorted(found.path.glob("*.so"))[:1] or [found.path], inside=False)
    else:
        code = gpu_code(found.path)
    return replace(found, gpu=code.found, cuda=code.cuda, vulkan=code.vulkan)


def offer(device: str, inventory: Inventory) -> Offer:
    """What `install` would put here. Raises ENGINE_UNSUPPORTED where there is no archive, or where none would reach
    the GPU."""
    kind = _machine(os.uname().machine)
    build = build_for(inventory, kind, glibc(), has_vulkan()) if device == "gpu" else VULKAN
    source = f"{releases(NAME, RELEASES)}/{VERSION}"
    what = f"llama.cpp {VERSION} ({build.name})"
    return Offer(NAME, what, source, build.download_bytes, build.room_bytes, own_folder(), (source,))


def build_for(inventory: Inventory, kind: str, system: Version | None, vulkan: bool) -> Build:
    """The best build for the GPUs of `inventory` on a machine of `kind` (x64, arm64) with the glibc `system` (None:
    another C library), where libvulkan.so.1 is here or is not. Raises ENGINE_UNSUPPORTED with what each would need."""
    wrong = {build.name: _unfit(build, inventory, kind, system, vulkan) for build in BUILDS}
    found = next((build for build in BUILDS if wrong[build.name] is None), None)
    if found is not None:
        return found
    reasons = "; ".join(f"{name}: {reason}" for name, reason in wrong.items())
    raise MscliError(
        Code.ENGINE_UNSUPPORTED,
        f"no official llama.cpp build runs on this GPU ({reasons})",
        "Install libvulkan.so.1 (Debian, Ubuntu: apt install libvulkan1), or put a llama-server with CUDA on PATH.",
    )


def _unfit(build: Build, inventory: Inventory, kind: str, system: Version | None, vulkan: bool) -> str | None:
    """What keeps a build from running here, in words; None where nothing does."""
    if kind not in build.machines:
        return f"not built for {kind}"
    if system is None or system < build.glibc:
        here = _dotted(system) if system else "another C library"
        return f"needs glibc {_dotted(build.glibc)}, this machine has {here}"
    if not build.cuda[0]:
        if any(device.mig for device in inventory.devices):
            return "Vulkan does not see MIG instances"
        return None if vulkan else "libvulkan.so.1 not found"
    driver = _version(inventory.cuda)
    if driver < build.cuda[:1]:
        return f"the driver offers CUDA {inventory.cuda or 'of an unknown version'}"
    for device in inventory.devices:
        capability = _version(device.compute_capability)
        if capability < build.least:
            return f"no code for compute capability {device.compute_capability}"
        if capability not in build.native and driver < build.cuda:
            return f"needs a driver with CUDA {_dotted(build.cuda)} on {device.name}, this one has {inventory.cuda}"
    return None


def _version(text: str | None) -> Version:
    return tuple(int(part) for part in re.findall(r"\d+", text or "")[:2])


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))


def has_vulkan() -> bool:
    """Whether the Vulkan loader is here."""
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
    build: Build | None = None,
) -> Installation:
    """Put a release of llama.cpp ("b11669") into `folder` (default: mscli's own) in place of what is there; returns it.

    `build`: by default the best for this machine's GPUs, the one with Vulkan where it has none. Goes through the proxy
    that the environment names, and on from what an earlier call has fetched. The new program is asked for its version
    before it replaces anything. Raises as archive.put does, USAGE for a version that is no build, ENGINE_UNSUPPORTED
    for a machine that no archive is made for, and ENGINE_MISSING where the program does not run.
    """
    from mscli.engines.archive import Archive, Publisher, put
    from mscli.engines.release import assets_of, part

    tag, kind = _tag(version), _machine(machine or os.uname().machine)
    build = build or _best_here(kind)
    publisher = Publisher(PAGE, OFFLINE)
    place = folder or own_folder()
    url = f"{(base or releases(NAME, RELEASES)).rstrip('/')}/{tag}"
    assets = assets_of(url, publisher)
    names = [f"llama-{tag}-bin-{build.archive}-{kind}"]
    if build.cuda[0]:  # CUDA's own libraries, which the driver does not bring
        names.append(f"cudart-{names[0]}")
    parts = [part(assets, rf"{name}\.tar\.gz", url, publisher) for name in names]
    archives = [
        (
            Archive(publisher, address, sha256, PROGRAM if number == 0 else ""),
            place.with_name(f"{place.name}-{tag}-{kind}{'-cudart' * number}.partial"),
        )
        for number, (address, sha256) in enumerate(parts)
    ]
    put(*archives[0], place, listener, own_program, archives[1:])
    if build is VULKAN:
        listener.note(Note("vulkan_build", VULKAN_NOTE))
    return own_program(place / PROGRAM)


def _best_here(kind: str) -> Build:
    from mscli.inventory.detect import detect

    inventory = detect(hub_cache())
    return build_for(inventory, kind, glibc(), has_vulkan()) if inventory.devices else VULKAN


def _tag(version: str) -> str:
    if not re.fullmatch(r"b?\d+", version):
        raise MscliError(
            Code.USAGE,
            f"{version!r} is not a llama.cpp build",
            f"Builds are numbers: mscli engines install llama.cpp=={VERSION}. Releases: {PAGE}",
        )
    return f"b{version.removeprefix('b')}"


def _machine(name: str) -> str:
    if found := MACHINES.get(name.lower()):
        return found
    raise MscliError(
        Code.ENGINE_UNSUPPORTED,
        f"llama.cpp publishes no Linux release for {name}",
        "Releases exist for x64 and arm64 only. Compile llama.cpp and put llama-server on PATH.",
    )


def own_folder() -> Path:
    """Where mscli installs llama.cpp."""
    return places().engines / NAME


def own_program(path: Path) -> Installation:
    """The llama-server at `path`, installed by mscli, asked for its version. Raises ENGINE_MISSING if it cannot run."""
    return _with_gpu_code(_program(path, "own", IN_OWN_FOLDER))


def _program(path: Path, kind: str, wording: tuple[str, str]) -> Installation:
    """The llama-server at `path`, asked for its version. `wording`: what it is and what to do if it does not run."""
    said = version_answer(path, *wording)
    version = next((line for line in said.splitlines() if line.startswith("version: ")), None)
    version = version and version.removeprefix("version: ")
    return Installation(NAME, (str(path),), version, kind, path, cpu=True)


def _wheel() -> Installation:
    """The wheel in this Python environment. It is not imported, and its version is read off its metadata's folder:
    importlib.metadata alone would take 15 ms of every start."""
    found = find_spec(WHEEL)
    if found is None or found.origin is None:
        raise MscliError(
            Code.ENGINE_MISSING,
            f"llama.cpp was not found: no llama-server on PATH or in {own_folder()}, no {WHEEL} wheel in {sys.prefix}",
            "Install the build for this machine: mscli engines install llama.cpp. For the CPU only: pip install "
            "'mscli[embedded]'. Or put your own llama-server on PATH.",
        )
    package = Path(found.origin).parent
    metadata = next(package.parent.glob(f"{WHEEL}-*.dist-info"), None)
    version = metadata.name.removeprefix(f"{WHEEL}-").removesuffix(".dist-info") if metadata else None
    # wheels with and without GPU code bear one name and one version
    return Installation(
        NAME, (sys.executable, "-m", "mscli.engines.llamacpp.embedded"), version, "wheel", package, cpu=True
    )
