"""llama.cpp's release with CUDA, in the project's own layout, of its real build for the CPU.

The program and its libraries are Debian's (make_roots.sh); what stands in for CUDA is in in_gpus_place. An API's answer
names the archives and their digests, as GitHub's does.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

from mscli.engines.llamacpp.installation import VERSION

SOURCES = Path(__file__).with_name("in_gpus_place")
BUILDS = ("12.8", "13.4")


def release(real: Path, folder: Path, work: Path, address: str) -> None:
    """Lay the release into `folder`, which is served at `address`. `real`: the build for the CPU; `work`: a folder."""
    folder.mkdir(parents=True)
    assets = []
    for cuda in BUILDS:
        name = f"llama-{VERSION}-bin-ubuntu-cuda-{cuda}-x64"
        main, beside = work / cuda / f"llama-{VERSION}", work / cuda / "cudart"
        library = f"libcudart.so.{cuda.partition('.')[0]}"
        shutil.copytree(real, main, symlinks=True)
        beside.mkdir()
        _compiled("cudart.c", beside / library, f"-Wl,-soname,{library}")
        _compiled("ggml_cuda.c", main / "libggml-cuda.so", str(beside / library), "-Wl,-rpath,$ORIGIN", "-ldl")
        assets += [
            _packed(packed, what, folder, address) for packed, what in ((name, main), (f"cudart-{name}", beside))
        ]
    (folder / VERSION).write_text(json.dumps({"tag_name": VERSION, "assets": assets}))


def _compiled(source: str, library: Path, *more: str) -> None:
    flags = ["-std=gnu11", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(library)]
    subprocess.run(["cc", *flags, str(SOURCES / source), *more], check=True)


def _packed(name: str, what: Path, folder: Path, address: str) -> dict[str, str]:
    packed = folder / f"{name}.tar.gz"
    with tarfile.open(packed, "w:gz", compresslevel=1) as tar:
        tar.add(what, what.name)
    digest = f"sha256:{hashlib.sha256(packed.read_bytes()).hexdigest()}"
    return {"name": packed.name, "digest": digest, "browser_download_url": f"{address}/{packed.name}"}
