"""A user's own profile whose weights lie on a hub on loopback: the rehearsal's two small files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mscli as package
from support.hub import Hub
from support.own_files import model_text, profile_text

REPOSITORY = "makers/tiny"
GGUF, PROJECTOR = "rehearsal-q8_0.gguf", "mmproj-rehearsal-f16.gguf"


@contextmanager
def published(folder: Path) -> Iterator[Hub]:
    """A hub that publishes them; `folder` is its own."""
    files = Path(package.__file__).parent / "rehearsal"
    with Hub(folder) as hub:
        hub.add(REPOSITORY, {GGUF: files / GGUF, PROJECTOR: files / PROJECTOR, "README.md": b"tiny"})
        yield hub


def own_profile(home: Path, name: str = "tiny", **lines: str) -> Path:
    """A user's profile like the rehearsal, whose model comes from the hub; `lines` are added to it."""
    profiles = home / "config" / "profiles"
    (profiles / "models").mkdir(parents=True, exist_ok=True)
    text = profile_text("rehearsal").replace("model: rehearsal", "model: tiny")
    path = profiles / f"{name}.yaml"
    kept = [line for line in text.splitlines(keepends=True) if line.partition(":")[0] not in lines]
    path.write_text("".join([*kept, *(f"{key}: {value}\n" for key, value in lines.items())]))
    model = model_text("rehearsal")
    source = f"source:\n      kind: hub\n      repository: {REPOSITORY}\n      revision: main\n"
    model = model.replace("source:\n      kind: package\n", source).replace("rehearsal/", "")
    (profiles / "models" / "tiny.yaml").write_text(model)
    return path


def at(hub: Hub, **more: str) -> dict[str, str]:
    """The environment that makes this hub the one in force."""
    return {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_TELEMETRY": "1", **more}
