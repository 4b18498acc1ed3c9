"""LM Studio's models folder: GGUF files that it has fetched serve as they lie there; nothing is ever written to it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from mscli.catalog.model import Variant
from mscli.errors import MscliError
from mscli.paths import lm_studio_folders
from mscli.weights.listing import Listing
from mscli.weights.local_folder import Loose, loose


def in_lm_studio(variant: Variant, listing: Listing | None) -> Loose | None:
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
            return Loose(folder, names)
    return None


def _as_listed(listing: Listing, folder: Path) -> tuple[str, ...]:
    sizes = {file.remote.name: file.remote.size_bytes for file in listing.files}
    here = all((folder / name).is_file() and (folder / name).stat().st_size == size for name, size in sizes.items())
    return tuple(sizes) if here else ()


def _as_headers_say(variant: Variant, folder: Path) -> tuple[str, ...]:
    with suppress(MscliError):  # some are missing or cut: then there is no copy to use, and nothing to tell of it
        return loose(variant, folder) or ()
    return ()
