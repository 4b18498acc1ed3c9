"""A mirror of Ollama's releases, laid out as the publisher's, whose archive holds the stand-in."""

from __future__ import annotations

import hashlib
import io
import json
import random
import tarfile
from pathlib import Path

from mscli.engines.ollama.installation import VERSION
from support.engines.releases import zstd_packed
from support.ollama.standins import SMALL, STANDIN

SCENE = {"registry": {SMALL: {"layers": [3_000_000, 1_000], "capabilities": ["completion", "vision", "tools"]}}}
LIBRARY_BYTES = 3_000_000
# The stand-in reads what it plays from a file that it may write, so a story copies it to the user's home.
EXPORTS = {"OLLAMA_STANDIN": "$HOME/scene.json", "MSCLI_OLLAMA_RELEASES": "http://127.0.0.1:9000"}


def release(folder: Path) -> None:
    """Lay the release into the mirror `folder`, and what the registry has beside it."""
    script = '#!/bin/sh\nexec /usr/bin/python3 -S "$(dirname "$0")/../lib/ollama/standin" "$@"\n'
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        entry = tarfile.TarInfo("bin/ollama")
        entry.size, entry.mode = len(script), 0o755
        tar.addfile(entry, io.BytesIO(script.encode()))
        library = tarfile.TarInfo("lib/ollama/libggml-base.so")  # so that it takes a moment, like the real one
        library.size = LIBRARY_BYTES
        tar.addfile(library, io.BytesIO(random.Random(1).randbytes(LIBRARY_BYTES)))
        for path in sorted(STANDIN.glob("*.py")):
            tar.add(path, f"lib/ollama/standin/{path.name}")
    packed, name = zstd_packed(plain.getvalue()), "ollama-linux-amd64.tar.zst"
    there = folder / f"v{VERSION}"
    there.mkdir(parents=True)
    (there / name).write_bytes(packed)
    (there / "sha256sum.txt").write_text(f"{hashlib.sha256(packed).hexdigest()}  ./{name}\n")
    (folder.parent / "scene.json").write_text(json.dumps(SCENE))
