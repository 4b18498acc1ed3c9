"""Where mistral.rs is and which kind: its program, told apart by its answer to `--version`, or its Python wheel.

mscli installs the project's archive for the GPUs here, which holds the program with CUDA; without a GPU the wheel."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from mscli.engines.engine import SERVERS, Installation, Offer
from mscli.engines.installed import (
    PythonEnvironment,
    environment_in,
    first_for_gpu,
    glibc,
    gpu_code,
    make_environment,
    this_environment,
    version_answer,
)
from mscli.errors import Code, MscliError
from mscli.frozen import frozen, replace
from mscli.inventory.inventory import Inventory
from mscli.paths import hub_cache, mistralrs_place, on_path, places, releases
from mscli.weights.progress import Listener

NAME = "mistral.rs"
# `mistralrs serve` came with 0.7 (January 2026); `mistralrs-server` was there until 0.8.4.
PROGRAMS = ("mistralrs", "mistralrs-server")
CURRENT, OLDER, WHEEL = "program", "older program", "wheel"
# The distributions that bring the package `mistralrs`, those with GPU code first.
WHEELS = ("mistralrs-cuda", "mistralrs-mkl", "mistralrs")
VERSIONS = ">=0.9.5"
DOWNLOAD_BYTES, ROOM_BYTES = 26 * 10**6, 2 * 10**8
SERVER = SERVERS / "mistralrs_server.py"
# The release whose flags were read: its program takes the size of the KV cache.
RELEASE = "0.9.2"
RELEASES = "https://api.github.com/repos/EricLBuehler/mistral.rs/releases/tags"
PAGE = "https://github.com/EricLBuehler/mistral.rs/releases"
OFFLINE = "put another machine's mistralrs on PATH."
# By the wheels of the CUDA libraries and NCCL that an archive brings along; no archive was measured.
ARCHIVE_BYTES, ARCHIVE_ROOM_BYTES = 9 * 10**8, 3 * 10**9
GET_ONE = (
    "Install it: mscli engines install mistral.rs (the project's program for the GPUs here, or the wheel for the CPU). "
    "Or put a mistralrs on PATH, compiled with: cargo install mistralrs-cli --features cuda"
)
IN_OWN_FOLDER = (
    "the mistralrs that mscli installs",
    "It is built for Ubuntu and may need newer system libraries. Put your own mistralrs on PATH.",
)
# What a program is, and what to do when it does not run.
IN_USE = (
    "the mistral.rs to be used",
    "Fix it, or remove it from PATH (and from MSCLI_MISTRALRS) to use another.",
)

_ANSWER = re.compile(r"^(?P<name>mistralrs(?:-server|-cli)?)\s+v?(?P<version>\d\S*)", re.MULTILINE)


def locate() -> Installation:
    """What MSCLI_MISTRALRS names, else `mistralrs` on PATH, else `mistralrs-server`, else the wheel: in mscli's own
    environment for it, or in the one that runs mscli; else the program that mscli installed.

    Waits at most VERSION_TIMEOUT_S for a program to tell its version. Raises ENGINE_MISSING with the way to get one,
    and when what is named or first on PATH does not run: whoever put it there wants it used.
    """
    return next(_copies())


def locate_for(device: str) -> Installation:
    """The first of them for the CPU; for a GPU the first that may have code for it, or what MSCLI_MISTRALRS names.
    Waits and raises as `locate` does."""
    if device != "gpu" or mistralrs_place():
        return next(_copies())
    return first_for_gpu(_copies(), _for_the_cpu)


def _for_the_cpu(passed: list[Path]) -> MscliError:
    seen = f"{passed[0]} has the wheel for the CPU"
    return MscliError(Code.ENGINE_MISSING, f"mistral.rs with GPU code was not found: {seen}", GET_ONE)


def _copies() -> Iterator[Installation]:
    """Every copy that is here, in the order of preference. Raises ENGINE_MISSING at the end, as `locate` does."""
    if named := mistralrs_place():
        yield _named(named)
    for name in PROGRAMS:
        if path := on_path(name):
            yield _program(Path(path).absolute())
    for environment in _environments():
        if found := _wheel(environment):
            yield found
    if (own := own_folder() / PROGRAMS[0]).is_file():
        yield _with_gpu_code(own)
    raise MscliError(
        Code.ENGINE_MISSING, "mistral.rs was not found: no mistralrs or mistralrs-server on PATH, no wheel", GET_ONE
    )


def offer(device: str, inventory: Inventory) -> Offer:
    """What `install` would put here. Raises ENGINE_UNSUPPORTED for GPUs that no archive of the project runs on."""
    from mscli.engines.packages import INDEX, addresses

    if device == "gpu":
        build = build_for(inventory, os.uname().machine, glibc())
        source = f"{releases(NAME, RELEASES)}/v{RELEASE}"
        what = f"mistral.rs {RELEASE} ({build.name})"
        return Offer(NAME, what, source, ARCHIVE_BYTES, ARCHIVE_ROOM_BYTES, own_folder(), (source,))
    what, source = f"mistral.rs {VERSIONS}", INDEX
    return Offer(NAME, what, source, DOWNLOAD_BYTES, ROOM_BYTES, own_environment(), addresses())


def install(listener: Listener, *, version: str | None = None) -> Installation:
    """Put mistral.rs (of that version) into mscli's own folder and return it: the project's archive for the GPUs here,
    else PyPI's wheel, which has no GPU code. Blocks for the download.

    Raises as archive.put does; of the wheel DOWNLOAD_FAILED with the installer's last words.
    """
    from mscli.inventory.detect import detect

    inventory = detect(hub_cache())
    if inventory.devices:
        return _install_archive(listener, version or RELEASE, inventory)
    wanted = f"mistralrs=={version}" if version else f"mistralrs{VERSIONS}"
    found = _wheel(make_environment(own_environment(), (wanted,), listener))
    assert found is not None
    return found


def _install_archive(listener: Listener, version: str, inventory: Inventory) -> Installation:
    from mscli.engines.archive import Archive, Publisher, put
    from mscli.engines.release import assets_of, part

    build = build_for(inventory, os.uname().machine, glibc())
    publisher, place = Publisher(PAGE, OFFLINE), own_folder()
    url = f"{releases(NAME, RELEASES)}/v{version}"
    address, sha256 = part(assets_of(url, publisher), re.escape(build.archive), url, publisher)
    archive = Archive(publisher, address, sha256, PROGRAMS[0])
    partial = place.with_name(f"{place.name}-{version}-{build.sm}.partial")
    return _with_gpu_code(put(archive, partial, place, listener, _with_gpu_code))


def own_folder() -> Path:
    """Where `install` unpacks the program."""
    return places().engines / "mistralrs-program"


def _with_gpu_code(path: Path) -> Installation:
    """The program of an archive, whose libraries lie in a folder beside it."""
    code = gpu_code(path, path.parent / "lib", inside=False)
    return replace(_program(path, IN_OWN_FOLDER), gpu=code.found, cuda=code.cuda)


def own_environment() -> Path:
    """The Python environment in which `install` puts the wheel."""
    return places().engines / "mistralrs"


def _environments() -> Iterator[PythonEnvironment]:
    if own := environment_in(own_environment()):
        yield own
    yield this_environment()


def _wheel(environment: PythonEnvironment) -> Installation | None:
    version = next((version for name in WHEELS if (version := environment.version(name))), None)
    if version is None:
        return None
    argv = (str(environment.python), str(SERVER))
    beside = environment.versions(WHEELS)
    gpu = set(beside) != {"mistralrs"}  # the wheel of that name has no GPU code
    return Installation(NAME, argv, version, WHEEL, environment.python, beside, gpu=gpu, cpu=True, library=True)


def _named(place: Path) -> Installation:
    environment = environment_in(place) if place.is_dir() else None
    if environment and (found := _wheel(environment)):
        return found
    if place.is_dir():
        raise MscliError(
            Code.ENGINE_MISSING,
            f"MSCLI_MISTRALRS is {place}, and there is no wheel of mistral.rs in it",
            "Set it to a Python environment with the wheel or to the mistralrs program, or unset it.",
            {"path": str(place)},
        )
    return _program(place)


def _program(path: Path, wording: tuple[str, str] = IN_USE) -> Installation:
    """The program at `path`. Which command line it takes says the name in its answer, whatever the file is called.
    `wording`: what it is and what to do if it does not run."""
    said = version_answer(path, *wording)
    told = _ANSWER.search(said)
    name = told["name"] if told else path.name
    kind = OLDER if name == "mistralrs-server" else CURRENT
    argv = (str(path),) if kind == OLDER else (str(path), "serve")
    return Installation(NAME, argv, told["version"] if told else None, kind, path, cpu=True)


# The project's own archives with CUDA. Each is built for one compute capability and one CUDA, whose libraries it brings
# along. Names, targets and the image that they are built in: .github/workflows/release.yml of v0.9.2; the CUDA that a
# driver must offer: its install.sh.
Version = tuple[int, ...]
GLIBC: Version = (2, 35)  # built on Ubuntu 22.04
MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
_X64, _ARM = ("80", "86", "89", "90", "100", "120"), ("90", "100", "121")
# Newest first: CUDA, and the compute capabilities that it was built for on each kind of machine.
_BUILT = (
    ((13, 3), {"x86_64": ("90",), "aarch64": ("90",)}),
    ((13, 2), {"x86_64": ("80", "86", "89", "100", "120"), "aarch64": ("100", "121")}),
    ((13, 1), {"x86_64": _X64, "aarch64": _ARM}),
    ((13, 0), {"x86_64": _X64, "aarch64": _ARM}),
    ((12, 9), {"aarch64": ("121",)}),
    ((12, 8), {"x86_64": _X64, "aarch64": ("90", "100")}),
)


@frozen
class Build:
    """One archive. `sm`: the compute capability without its dot."""

    cuda: Version
    sm: str
    machine: str

    @property
    def archive(self) -> str:
        """Its name in a release."""
        return f"mistralrs-cuda{''.join(map(str, self.cuda))}-sm{self.sm}-{self.machine}-unknown-linux-gnu.tar.gz"

    @property
    def name(self) -> str:
        """For people."""
        return f"CUDA {'.'.join(map(str, self.cuda))}, sm{self.sm}"


def build_for(inventory: Inventory, machine: str, system: Version | None) -> Build:
    """The newest build for the GPUs of `inventory`, on a machine called `machine` with the glibc `system` (None:
    another C library). Raises ENGINE_UNSUPPORTED with what is in the way and the way on."""
    kind = MACHINES.get(machine.lower())
    if kind is None:
        raise _none(f"there is none for {machine}")
    if system is None or system < GLIBC:
        here = f"glibc {'.'.join(map(str, system))}" if system else "another C library"
        raise _none(f"they need glibc {'.'.join(map(str, GLIBC))}, this machine has {here}")
    capabilities = sorted({device.compute_capability or "unknown" for device in inventory.devices})
    if len(capabilities) != 1:
        raise _none(f"each is for one compute capability, these GPUs have {', '.join(capabilities) or 'none'}")
    driver, sm = tuple(map(int, re.findall(r"\d+", inventory.cuda or "")[:2])), capabilities[0].replace(".", "")
    built = [cuda for cuda, kinds in _BUILT if sm in kinds.get(kind, ())]
    if not built:
        raise _none(f"none is built for compute capability {capabilities[0]} on {kind}")
    found = next((cuda for cuda in built if driver >= cuda), None)
    if found is None:
        oldest = ".".join(map(str, built[-1]))
        raise _none(f"they need a driver with CUDA {oldest}, this one offers {inventory.cuda or 'an unknown one'}")
    return Build(found, sm, kind)


def _none(reason: str) -> MscliError:
    return MscliError(
        Code.ENGINE_UNSUPPORTED,
        f"no official mistral.rs archive runs on this machine: {reason}",
        "Compile it (cargo install mistralrs-cli --features cuda) and put mistralrs on PATH, or use a profile on "
        "another engine: mscli profiles",
    )
