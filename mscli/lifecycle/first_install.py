"""The engine that a plan needs, installed into mscli's own folder if it is not here, before any weight is fetched."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mscli.engines.engine import Adopted, Engine, Hosted, Installation, Offer, StageListener
from mscli.engines.table import install_engine
from mscli.errors import Code, MscliError
from mscli.frozen import frozen
from mscli.instances.store import try_lock
from mscli.inventory.host import free_bytes
from mscli.lifecycle.decision import Decision
from mscli.lifecycle.snapshot import located, offered
from mscli.paths import Places, hub_cache
from mscli.weights.ensure import tried, wanted
from mscli.weights.fault import check_rooms
from mscli.weights.progress import Note

INSTALL = "install"
_LOCK_POLL_S = 0.2


@frozen
class Fetching:
    """All that a start would fetch: an engine, and `weights_bytes` into `weights_folder`. `free_bytes`: of the disk
    that the engine goes to."""

    engine: Offer
    weights: str
    weights_bytes: int
    weights_folder: Path
    free_bytes: int


# Asked before an engine is installed; False ends the start. May raise.
Consent = Callable[[Fetching], bool]


def have_engine(
    engine: Engine,
    decision: Decision,
    places: Places,
    listener: StageListener,
    consent: Consent | None,
    folder: str | None = None,
) -> tuple[Installation, bool]:
    """The copy of the engine that `decision` is run on, and whether it was installed for it. `folder`: weights that
    were brought by disk.

    Blocks for the download. `consent` None: nothing is installed. Raises ENGINE_MISSING where it cannot be had, or what
    is here cannot run on this GPU, DISK_FULL where engine and weights have no room, INTERRUPTED where the user does not
    want it, and what the engine's installer raises.
    """
    there = _found(engine, decision)
    if not isinstance(there, MscliError):
        return there, False
    if consent is None:
        raise there
    from mscli.engines.archive import remove_leftovers  # 28 ms that a start with an engine saves

    found = _offered(decision, there)
    remove_leftovers(found.folder)
    fetching = _fetching(engine, decision, places, found, folder)
    both = ((found.folder, found.room_bytes), (fetching.weights_folder, fetching.weights_bytes))
    check_rooms(both, f"{found.what} with the weights")
    if not consent(fetching):
        raise MscliError(Code.INTERRUPTED, "nothing was downloaded", "Other ways to run it: mscli plan --all")
    with _alone(found, listener):
        if not isinstance(again := _here(engine, decision), MscliError):
            return again, True  # another mscli has installed it meanwhile
        listener.stage(INSTALL, f"{found.what} into {found.folder}")
        install_engine(found.engine, listener)
        fresh = _here(engine, decision)
    if isinstance(fresh, MscliError):
        raise fresh
    return fresh, True


def engine_here(engine: Engine, decision: Decision, installs: bool) -> Installation | None:
    """As `have_engine`, but nothing is installed: None where it would be, if `installs`. Raises ENGINE_MISSING."""
    there = _found(engine, decision)
    if not isinstance(there, MscliError):
        return there
    if not installs:
        raise there
    _offered(decision, there)
    return None


def _offered(decision: Decision, missing: MscliError) -> Offer:
    profile = decision.profile
    return offered(profile.engine, missing, profile.device, decision.snapshot.inventory)


def _found(engine: Engine, decision: Decision) -> Installation | MscliError:
    there = decision.snapshot.found.get((engine.name, decision.profile.device))
    if there is None or isinstance(there, Adopted):  # a server that ran then, and does not now
        return _here(engine, decision)
    return there


def _here(engine: Engine, decision: Decision) -> Installation | MscliError:
    found = located(engine.name, decision.profile.device, decision.snapshot.inventory)
    assert not isinstance(found, Adopted)  # a server that is used as it is needs no copy, and comes first
    return found


def _fetching(engine: Engine, decision: Decision, places: Places, found: Offer, folder: str | None) -> Fetching:
    """What is fetched in all. Where the weights come from a hub, it is asked for their size and for one file."""
    variant = decision.variant
    missing_bytes, target = 0, hub_cache()
    if isinstance(engine, Hosted):
        target = places.ollama / "models"
        missing_bytes = 0 if engine.stored(variant) else variant.download_bytes
    elif not folder:
        listing = wanted(decision.model, variant)
        tried(variant, listing)  # no engine is fetched for weights that the hub refuses
        missing_bytes = listing.missing_bytes
    title = f"{decision.model.title}, {variant.name}"
    return Fetching(found, title, missing_bytes, target, free_bytes(found.folder))


@contextmanager
def _alone(found: Offer, listener: StageListener) -> Iterator[None]:
    """Hold the lock of one engine's folder; waits for another mscli that installs it, as long as that takes."""
    folder = found.folder.parent
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{found.engine}.lock").open("w") as lock:
        if not try_lock(lock.fileno()):
            listener.note(Note("waiting", f"another mscli is installing {found.engine}"))
            while not try_lock(lock.fileno()):
                time.sleep(_LOCK_POLL_S)
        yield
