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
ARCHIVE = f"llama-{VERSION}-bin-ubuntu-cuda-13.4-x64"


def release(real: Path, folder: Path, work: Path, address: str) -> None:
    """Lay the release into `folder`, which is served at `address`. `real`: the build for the CPU; `work`: a folder."""
    main, beside = work / f"llama-{VERSION}", work / "cudart"
    shutil.copytree(real, main, symlinks=True)
    beside.mkdir()
    _compiled("cudart.c", beside / "libcudart.so.13", "-Wl,-soname,libcudart.so.13")
    _compiled("ggml_cuda.c", main / "libggml-cuda.so", str(beside / "libcudart.so.13"), "-Wl,-rpath,$ORIGIN", "-ldl")
    folder.mkdir(parents=True)
    assets = [_packed(name, what, folder, address) for name, what in ((ARCHIVE, main), (f"cudart-{ARCHIVE}", beside))]
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
