"""Weights in a plain folder (a clone, `hf download --local-dir`, a copied snapshot, LM Studio's models folder).

There is no listing to compare with, so the files are only asked what they say of themselves: every part of a split file
must be there, and each must be as long as its header says. Nothing is ever written to such a folder.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from mscli.catalog.model import Variant
from mscli.errors import Code, MscliError
from mscli.frozen import frozen
from mscli.paths import lm_studio_folders
from mscli.weights.cache import Cache
from mscli.weights.header import length_fault
from mscli.weights.listing import WEIGHT_SUFFIXES, Listing, RemoteFile, WantedFile, matching

SPLIT = re.compile(r"(?P<stem>.*)-(?P<part>\d{5})-of-(?P<parts>\d{5})(?P<suffix>\.\w+)")


@frozen
class LocalFiles:
    """A variant's files, by their names in `folder`."""

    folder: Path
    names: tuple[str, ...]

    def listing(self, variant: Variant) -> Listing:
        """The files with their sizes; their hashes are not known."""
        sizes = {name: (self.folder / name).stat().st_size for name in self.names}
        files = (WantedFile(RemoteFile(name, size, None, ""), size, True) for name, size in sizes.items())
        return Listing(variant.source.repository, variant.source.revision, tuple(files))


def unlisted(variant: Variant, place: Cache, folder: Path | None) -> LocalFiles | None:
    """The variant's files as another tool left them: in the cache at the pinned commit, or plainly in `folder`.

    None when there are none. Raises MscliError(WEIGHTS_MISSING) when some are missing or cut.
    """
    source = variant.source
    commit = place.commit(source.repository, source.revision)
    snapshot = place.snapshot(source.repository, commit) if commit else None
    plain = folder if folder is not None and not any(folder.glob("models--*")) else None
    for candidate in (snapshot, plain):
        if candidate is not None and (names := names_in(variant, candidate)) is not None:
            return LocalFiles(candidate, names)
    return None


def names_in(variant: Variant, folder: Path) -> tuple[str, ...] | None:
    """The names of the variant's files in `folder`; None when there are none of its weights at all.

    Raises MscliError(WEIGHTS_MISSING) when some are missing or cut.
    """
    if not folder.is_dir():
        return None
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    found = matching(names, variant)
    if not any(name.endswith(WEIGHT_SUFFIXES) for name in found):
        return None
    faults = [f"{name} is missing" for name in _absent(variant, found)]
    faults += [f"{name}: {fault}" for name in found if (fault := length_fault(folder / name))]
    if faults:
        message = f"incomplete weights in {folder}: {'; '.join(faults[:3])}"
        hint = "copy them again: `mscli pull --to DIR` on an online machine, `mscli up --weights DIR` here"
        raise MscliError(Code.WEIGHTS_MISSING, message, hint, {"cause": "corrupt_weights", "faults": faults})
    return found


def _absent(variant: Variant, found: tuple[str, ...]) -> list[str]:
    plain = [name for name in variant.source.files if not set(name) & set("*?[")]
    projector = [variant.source.projector] if variant.source.projector else []
    split = [match for name in found if (match := SPLIT.fullmatch(name))]
    parts = [
        f"{match['stem']}-{part:05d}-of-{match['parts']}{match['suffix']}"
        for match in split
        for part in range(1, int(match["parts"]) + 1)
    ]
    return sorted({*plain, *projector, *parts} - set(found))


def in_lm_studio(variant: Variant, listing: Listing | None) -> LocalFiles | None:
    """The variant's files as LM Studio keeps them, projector included; None unless every one is there and whole.

    With the hub's `listing` each must have exactly the size that it states; without one (None) each must be as long as
    its own header says. The content's hash is checked by `mscli pull --verify` alone.
    """
    if variant.format != "gguf":
        return None
    for models in lm_studio_folders():
        folder = models / variant.source.repository
        names = _as_listed(listing, folder) if listing else _as_headers_say(variant, folder)
        if names:
            return LocalFiles(folder, names)
    return None


def _as_listed(listing: Listing, folder: Path) -> tuple[str, ...]:
    sizes = {file.remote.name: file.remote.size_bytes for file in listing.files}
    here = all((folder / name).is_file() and (folder / name).stat().st_size == size for name, size in sizes.items())
    return tuple(sizes) if here else ()


def _as_headers_say(variant: Variant, folder: Path) -> tuple[str, ...]:
    with suppress(MscliError):  # some are missing or cut: then there is no copy to use, and nothing to tell of it
        return names_in(variant, folder) or ()
    return ()
