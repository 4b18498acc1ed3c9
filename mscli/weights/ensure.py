"""Weights on this machine, whole and checked: the entry points for pulling and looking up a variant.

Weights from the hub live in the cache that all Hugging Face tools share; `folder` names another one of the same layout,
as `copy_to` makes it for machines without a network, or a plain folder with the files. Some come inside the mscli
package itself: of those nothing is downloaded.
"""

from __future__ import annotations

from pathlib import Path

from mscli.catalog.model import Model, Variant
from mscli.errors import Code, MscliError
from mscli.weights.fault import DEFAULT_TIMEOUTS, Timeouts
from mscli.weights.listing import Listing, RemoteFile, WantedFile
from mscli.weights.progress import Listener, WeightFiles

__all__ = ["Timeouts", "ensure", "tried", "wanted"]


def ensure(
    model: Model,
    variant: Variant,
    listener: Listener,
    *,
    offline: bool = False,
    folder: Path | None = None,
    timeouts: Timeouts = DEFAULT_TIMEOUTS,
) -> WeightFiles:
    """The variant's weight files, complete and verified; fetches what is missing and waits for it.

    `offline`: nothing is fetched (HF_HUB_OFFLINE has the same effect). `folder`: weights brought by disk, used in place
    of the hub cache; nothing is fetched either. Interrupted or killed, it keeps what has arrived for the next call.
    With everything in place it neither asks the hub nor imports its library. Raises MscliError with WEIGHTS_MISSING,
    DOWNLOAD_FAILED, DISK_FULL, FILE or ENGINE_UNSUPPORTED; details["cause"] is one of hf_gated, hf_rate_limit,
    network_proxy, offline, stalled_download, corrupt_download, corrupt_weights, disk_full, model_not_found.
    """
    if variant.source.kind == "package":
        return packaged(model, variant)
    from mscli.weights.from_hub import fetch

    return fetch(variant, listener, offline=offline, folder=folder, timeouts=timeouts)


def wanted(
    model: Model,
    variant: Variant,
    *,
    offline: bool = False,
    folder: Path | None = None,
    timeouts: Timeouts = DEFAULT_TIMEOUTS,
) -> Listing:
    """What the variant needs, byte for byte, and what of it is here; asks the hub once per commit, fetches nothing.

    Raises MscliError(WEIGHTS_MISSING) when the hub was never asked and must not be; otherwise as `ensure` does.
    """
    if variant.source.kind == "package":
        files = (
            WantedFile(RemoteFile(name, size, None, ""), size, True) for name, size in package_files(model, variant)
        )
        return Listing("mscli", "", tuple(files))
    from mscli.weights.from_hub import listed

    return listed(variant, offline=offline, folder=folder, timeouts=timeouts)


def tried(variant: Variant, listing: Listing) -> None:
    """Ask the hub for one file of what is missing: whether its conditions and the token let it pass, and nothing more.

    Raises as `ensure` does, hf_gated above all. Waits for one answer.
    """
    if variant.source.kind != "package":
        from mscli.weights.from_hub import tried as of_hub

        of_hub(variant, listing)


def packaged(model: Model, variant: Variant) -> WeightFiles:
    """The weight files inside the package, whose sizes add up to the variant's `download_bytes`.

    Names are relative to the mscli package. Raises MscliError(WEIGHTS_MISSING) for an absent file or another size.
    """
    size = sum(size for _, size in package_files(model, variant))
    if size != variant.download_bytes:
        seen = f"its files have {size:,} bytes instead of {variant.download_bytes:,}"
        raise _broken(model, seen, "corrupt_weights")
    first = _root() / variant.source.files[0]
    projector = str(_root() / variant.source.projector) if variant.source.projector else None
    return WeightFiles(str(first if variant.format == "gguf" else first.parent), projector, size)


def package_files(model: Model, variant: Variant) -> tuple[tuple[str, int], ...]:
    """Name and bytes of each of the variant's files. Raises MscliError(WEIGHTS_MISSING) when one is absent."""
    projector = variant.source.projector
    names = tuple(dict.fromkeys((*variant.source.files, *([projector] if projector else []))))
    if absent := [name for name in names if not (_root() / name).is_file()]:
        raise _broken(model, f"{', '.join(absent)} missing in {_root()}", "model_not_found")
    return tuple((name, (_root() / name).stat().st_size) for name in names)


def _root() -> Path:
    return Path(__file__).parents[1]  # importlib.resources would take 4 ms


def _broken(model: Model, seen: str, cause: str) -> MscliError:
    message = f"the weights of {model.name} inside mscli are damaged: {seen}"
    hint = "install mscli again: pip install --force-reinstall mscli"
    return MscliError(Code.WEIGHTS_MISSING, message, hint, {"cause": cause})
