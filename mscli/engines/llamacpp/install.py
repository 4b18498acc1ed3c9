"""llama.cpp's official release in mscli's own folder: fetched, checked against the published hash, unpacked. No root.

It is the build for Vulkan, which also holds the CPU back ends: llama.cpp publishes no Linux build for CUDA. Whoever
wants CUDA compiles llama.cpp or takes a package of it; its llama-server on PATH then goes before this one.
"""

from __future__ import annotations

import json
import platform
import re
from pathlib import Path

from mscli.engines.archive import Archive, Publisher, client, put, read
from mscli.engines.engine import Installation
from mscli.engines.llamacpp.engine import PROGRAM, own_folder, own_program
from mscli.errors import Code, MscliError
from mscli.weights.progress import Listener, Note

# The build whose command line was tested here.
VERSION = "b11669"
# Checksums stand only in GitHub's REST API, which names the archives and where they lie as well.
RELEASES = "https://api.github.com/repos/ggml-org/llama.cpp/releases/tags"
MACHINES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}
PUBLISHER = Publisher(
    page="https://github.com/ggml-org/llama.cpp/releases",
    offline="put another machine's llama-server on PATH, or install the wheel: pip install 'mscli[embedded]'.",
)
VULKAN = (
    "this build reaches the GPU through Vulkan (it needs libvulkan.so.1 and the driver's Vulkan part), else it runs on "
    "the CPU. For CUDA compile llama.cpp or install a package of it, and put its llama-server on PATH: it is then used"
)


def install(
    listener: Listener,
    *,
    version: str = VERSION,
    base: str = RELEASES,
    folder: Path | None = None,
    machine: str | None = None,
) -> Installation:
    """Put a build of llama.cpp ("b11669") into `folder` (default: mscli's own) in place of what is there; returns it.

    Goes through the proxy that the environment names, and on from what an earlier call has fetched. The new program is
    asked for its version before it replaces anything. Raises as archive.put does, USAGE for a version that is no build,
    ENGINE_UNSUPPORTED for a machine that no archive is made for, and ENGINE_MISSING where the program does not run.
    """
    build, kind = _build(version), _machine(machine or platform.machine())
    place = folder or own_folder()
    partial = place.with_name(f"{place.name}-{build}-{kind}.partial")
    url = f"{base.rstrip('/')}/{build}"
    with client() as http:
        archive = _archive(read(http, url, PUBLISHER), url, f"llama-{build}-bin-ubuntu-vulkan-{kind}.tar.gz")
        put(http, archive, partial, place, listener, own_program)
    listener.note(Note("vulkan_build", VULKAN))
    return own_program(place / PROGRAM)


def _build(version: str) -> str:
    if not re.fullmatch(r"b?\d+", version):
        raise MscliError(
            Code.USAGE,
            f"{version!r} is no build of llama.cpp",
            f"Builds are numbers: mscli engines install llama.cpp=={VERSION}. Which there are: {PUBLISHER.page}",
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


def _archive(release: str, url: str, name: str) -> Archive:
    """The archive called `name` by what the API says of the release: {"assets": [{name, digest, address}]}."""
    try:
        assets = {asset["name"]: asset for asset in json.loads(release)["assets"]}
        found = assets.get(name)
        digest, address = (found["digest"] or "", found["browser_download_url"]) if found else ("", "")
    except (ValueError, KeyError, TypeError) as fault:
        raise _unusable(f"{url} does not answer as GitHub does", "A proxy's page?", "network_proxy") from fault
    if found is None:
        raise _unusable(f"the release at {url} has no {name}", f"Take another build: {PUBLISHER.page}")
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise _unusable(f"{url} states no sha256 of {name}", f"Take a newer build: {PUBLISHER.page}")
    return Archive(PUBLISHER, address, digest.removeprefix("sha256:"), PROGRAM)


def _unusable(seen: str, hint: str, cause: str = "model_not_found") -> MscliError:
    return MscliError(Code.DOWNLOAD_FAILED, seen, hint, {"cause": cause})
