"""Models folders of Ollama on this disk, read without a server: what they hold, and how an instance borrows from one.

    <models>/manifests/<registry>/<namespace>/<model>/<tag>     JSON: the digests and sizes of the model's layers
    <models>/blobs/sha256-<64 hex>                              the layers

An instance's server has a models folder of its own, with a copy of the manifest and links to the blobs. Nothing is ever
written through such a link: the server reads it, makes new blobs beside it, and removes the link alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from mscli.engines.ollama.flags import Parameter
from mscli.frozen import frozen
from mscli.weights.progress import VERIFYING, Listener, Meter, Silence

# Up to this size a blob's hash is checked with every look. The server checks what it has fetched, and never again.
_SMALL = 1 << 20
_NOBODY = Silence()
_BLOCK = 8 << 20
_PARAMETERS, _SYSTEM = (f"application/vnd.ollama.image.{kind}" for kind in ("params", "system"))
REGISTRY, LIBRARY, LATEST = "registry.ollama.ai", "library", "latest"


@frozen
class Stored:
    """A model in a models folder. `blobs`: each file that it needs, with the size that its manifest states."""

    manifest: Path
    blobs: Mapping[Path, int]

    @property
    def size_bytes(self) -> int:
        """All of it."""
        return sum(self.blobs.values())

    @property
    def whole(self) -> bool:
        """True if every blob is there in its full size, and the small ones are what their names say.

        Raises PermissionError where that cannot be seen.
        """
        return all(_size(blob) == size and (size > _SMALL or _is_itself(blob)) for blob, size in self.blobs.items())

    def damaged(self, listener: Listener = _NOBODY) -> tuple[Path, ...]:
        """The blobs whose content is not what their names say, or that are not there; hashes every byte."""
        meter, done, found = Meter(VERIFYING, self.size_bytes), 0, []
        for blob, size in self.blobs.items():
            listener.progress(meter.look(done, blob.name))
            if _size(blob) != size or not _is_itself(blob):
                found.append(blob)
            done += size
        return tuple(found)


def stored(models: Path, tag: str) -> Stored | None:
    """The model `tag` in the folder `models`, None if it is not there or its manifest is damaged.

    Raises PermissionError for a folder that this user may not read.
    """
    return read(_manifests(models) / _place(tag))


def read(manifest: Path) -> Stored | None:
    """The model that a manifest describes; None where there is none, or it is damaged. Raises PermissionError."""
    try:
        told = json.loads(manifest.read_bytes())
        layers = [*told["layers"], told["config"]]
        blobs = next(parent for parent in manifest.parents if parent.name == "manifests").parent / "blobs"
        return Stored(manifest, {blobs / layer["digest"].replace(":", "-"): int(layer["size"]) for layer in layers})
    except PermissionError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration):
        return None


def all_stored(models: Path) -> tuple[tuple[str, Stored], ...]:
    """Every model in the folder, by its name as `ollama list` shows it. Empty where nothing can be read."""
    try:
        manifests = sorted(path for path in _manifests(models).glob("*/*/*/*") if path.is_file())
        return tuple((_name(path), found) for path in manifests if (found := read(path)))
    except OSError:
        return ()


def borrowed(manifest: Path, models: Path) -> tuple[dict[Path, str], dict[Path, Path]]:
    """What makes the model of `manifest` appear in the folder `models`: files with their text, and links with what they
    lead to. Nothing is written here; both are empty where the manifest cannot be read."""
    found = read(manifest)
    if found is None:
        return {}, {}
    below = manifest.parts[manifest.parts.index("manifests") :]
    links = {models / "blobs" / blob.name: blob.resolve() for blob in found.blobs}
    return {models.joinpath(*below): manifest.read_text()}, links


def derive(models: Path, source: str, name: str, parameters: Mapping[str, Parameter], system: str | None) -> None:
    """Write what a server's create writes: a model of the same layers, with parameters and a system prompt of its own.

    For borrowed blobs of another user: since 0.21 a server that creates a model sets their time, which their owner
    alone may do. Raises OSError, and ValueError or LookupError for a manifest or parameters that are damaged.
    """
    told, blobs = json.loads((_manifests(models) / _place(source)).read_bytes()), models / "blobs"
    by_kind = {layer["mediaType"]: layer for layer in told["layers"]}
    before = by_kind.get(_PARAMETERS)
    known = json.loads((blobs / before["digest"].replace(":", "-")).read_bytes()) if before else {}
    made = {_PARAMETERS: json.dumps({**known, **parameters})} | ({_SYSTEM: system} if system else {})
    layers = [layer for layer in told["layers"] if layer["mediaType"] not in made]
    for kind, text in made.items():
        digest = hashlib.sha256(text.encode()).hexdigest()
        (blobs / f"sha256-{digest}").write_text(text)
        layers.append({"mediaType": kind, "digest": f"sha256:{digest}", "size": len(text.encode())})
    manifest = _manifests(models) / _place(name)
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(json.dumps({**told, "layers": layers}))


def drop(manifest: Path) -> None:
    """Remove a model from its folder: its manifest, and the blobs that no other model of the folder needs.

    Raises OSError where that may not be done.
    """
    found = read(manifest)
    manifest.unlink()
    models = manifest.parents[4]
    needed = {blob for _, other in all_stored(models) for blob in other.blobs}
    for blob in (found.blobs if found else {}).keys() - needed:
        blob.unlink(missing_ok=True)


def clear_damaged(models: Path) -> None:
    """Remove blobs from a folder of mscli's own that are surely damaged: a server would take them for whole, since it
    looks at their names alone. Small ones are hashed, of others the size is compared with what a manifest states.
    Manifests of models that are not whole go too: the server would not fetch what it lists."""
    known = {blob: size for _, found in all_stored(models) for blob, size in found.blobs.items()}
    for blob in models.glob("blobs/sha256-*"):
        size = _size(blob)
        if "-partial" in blob.name or size is None:
            continue
        if known.get(blob, size) != size or (size <= _SMALL and not _is_itself(blob)):
            blob.unlink(missing_ok=True)
    for _, found in all_stored(models):
        if not found.whole:
            found.manifest.unlink(missing_ok=True)


def _manifests(models: Path) -> Path:
    return models / "manifests"


def _place(tag: str) -> Path:
    """Where the manifest of a name lies below `manifests`, with what the name leaves out filled in."""
    path, _, version = tag.rpartition(":") if ":" in tag.rpartition("/")[2] else (tag, "", LATEST)
    parts = path.split("/")
    return Path(*[REGISTRY, LIBRARY][: 3 - len(parts)], *parts, version)


def _name(manifest: Path) -> str:
    registry, namespace, model, tag = manifest.parts[-4:]
    before = [] if registry == REGISTRY else [registry]
    return "/".join([*before, *([] if namespace == LIBRARY and not before else [namespace]), f"{model}:{tag}"])


def _is_itself(blob: Path) -> bool:
    digest = hashlib.sha256()
    with blob.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return blob.name == f"sha256-{digest.hexdigest()}"


def _size(blob: Path) -> int | None:
    try:
        return blob.stat().st_size
    except PermissionError:
        raise
    except OSError:
        return None
