"""Weights on servers that hold many models and fetch them by themselves: which are there, fetched, and removed.

A pull uses a server that runs only as long as the pull takes, or the one on another machine that is used.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from mscli.catalog.load import Catalog
from mscli.catalog.model import Model, Variant
from mscli.catalog.profile import Profile
from mscli.engines.engine import Command, Hosted
from mscli.engines.environment import inherited
from mscli.engines.table import STARTABLE, engine
from mscli.errors import Code, MscliError
from mscli.frozen import frozen
from mscli.instances.process import END
from mscli.instances.records import Records, running
from mscli.instances.state import probe
from mscli.instances.store import try_lock
from mscli.paths import places
from mscli.weights.progress import WAITING, Listener, Note, Progress, WeightFiles

START_TIMEOUT_S = 60.0
_HOST = "127.0.0.1"
_LOCK_POLL_S = 0.2


def ensure(
    engine: Hosted,
    variant: Variant,
    listener: Listener,
    offline: bool = False,
    agree: Callable[[int], bool] | None = None,
) -> WeightFiles:
    """The variant's weights on this disk, to be borrowed; fetched into mscli's own store where no store has them.

    A server runs for the pull alone. Blocks for the pull, and for that of another mscli. `agree`: asked with the number
    of bytes before the download; False ends it. Raises WEIGHTS_MISSING when `offline` and they are not here,
    INTERRUPTED, ENGINE_MISSING, START_FAILED, and what the pull raises.
    """
    if here := engine.stored(variant):
        return here
    if words := engine.closed():
        listener.note(Note("closed", words))
    may_fetch(engine, variant, offline, agree)
    with _alone(engine, variant.download_bytes, listener):
        if here := engine.stored(variant):
            return here
        with _started(engine) as address:
            engine.fetch(address, variant, listener)
    found = engine.stored(variant)
    assert found, "the server says that it has the weights"
    return found


def pull(
    profile: Profile, model: Model, variant: Variant, listener: Listener, offline: bool, verify: bool = False
) -> tuple[WeightFiles, str]:
    """The weights where `mscli up` would use them, fetched if they are missing, and where that is, in words.

    That is the server on another machine that this user's environment names, else this disk. `verify`: every byte on
    this disk is hashed, and what is damaged in mscli's own store is fetched again. Raises as `ensure` does, and
    WEIGHTS_MISSING for damaged weights that are not mscli's.
    """
    known = engine(profile.engine)
    assert isinstance(known, Hosted), "the catalog has such weights for engines with a server only"
    adopted = known.adopt()
    if adopted is None:
        found = ensure(known, variant, listener, offline)
        if verify and (bad := known.damaged(found, listener)):
            _discard(known, variant, found, bad)
            found = ensure(known, variant, listener, offline)
        return found, f"in {Path(found.model).parents[4]}"
    for warning in known.check(adopted, profile, model):
        listener.note(Note("server", warning))
    address = (adopted.host, adopted.port)
    if offline and variant.source.repository not in [held.name for held in known.held(address)]:
        may_fetch(known, variant, offline, None)
    return known.fetch(address, variant, listener), f"on {adopted.owner}"


def _discard(known: Hosted, variant: Variant, found: WeightFiles, bad: tuple[Path, ...]) -> None:
    """Remove damaged weights from mscli's own store, to be fetched again. Raises WEIGHTS_MISSING where they are not."""
    ours = next((kept for kept in known.kept() if kept.ours and str(kept.manifest) == found.model), None)
    if ours is None:
        tag = variant.source.repository
        raise MscliError(
            Code.WEIGHTS_MISSING,
            f"{tag} is damaged: {', '.join(map(str, bad))} does not match its digest",
            f"Download it again: ollama rm {tag}; ollama pull {tag}. Or remove it, and mscli downloads it itself.",
            {"cause": "corrupt_weights", "bad": [str(path) for path in bad]},
        )
    for path in bad:
        path.unlink(missing_ok=True)
    known.drop(ours)


def may_fetch(engine: Hosted, variant: Variant, offline: bool, agree: Callable[[int], bool] | None) -> None:
    """Raise if weights that are not here must not be fetched, or the user does not want it."""
    if offline:
        raise MscliError(
            Code.WEIGHTS_MISSING,
            f"{variant.source.repository} is not on this disk for {engine.name}, and --offline forbids downloading it",
            "Leave out --offline, or download it first: mscli pull",
            {"cause": "offline"},
        )
    if agree and not agree(variant.download_bytes):
        raise MscliError(Code.INTERRUPTED, "nothing was downloaded", "Another profile may need less: mscli profiles")


@contextmanager
def _alone(engine: Hosted, size_bytes: int, listener: Listener) -> Iterator[None]:
    """Hold the engine's lock on its store: two servers that fetch one blob into one folder break each other's file.

    Waits for another mscli that fetches, as long as that takes, and tells `listener` so.
    """
    folder = places().data
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{engine.name}.lock").open("w") as lock:
        if not try_lock(lock.fileno()):
            listener.note(Note("waiting", "another mscli is downloading weights for this engine: waiting for it"))
            while not try_lock(lock.fileno()):
                listener.progress(Progress(WAITING, 0, size_bytes, None, None, None))
                time.sleep(_LOCK_POLL_S)
        yield


@contextmanager
def _started(engine: Hosted) -> Iterator[tuple[str, int]]:
    """A server that runs until the end of the block. Waits at most START_TIMEOUT_S until it answers."""
    from tempfile import TemporaryDirectory

    found = engine.locate()
    port = _free_port()
    what = engine.bare(found, (_HOST, port))
    with TemporaryDirectory(prefix="mscli-pull-") as folder:
        log = Path(folder) / "log"
        server = _spawn(engine.name, what, log)
        try:
            _wait(engine, (_HOST, port), server, log)
            yield _HOST, port
        finally:
            _end(server)


def _free_port() -> int:
    """One of the kernel's choice: nobody else starts servers among those, and clients need not know it."""
    with socket.create_server((_HOST, 0)) as free:
        return int(free.getsockname()[1])


def _spawn(engine: str, what: Command, log: Path) -> subprocess.Popen[bytes]:
    """Its own session: Ctrl-C is for the pull, which ends first. Should mscli be killed, the server ends with it."""
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "mscli.instances.process", *what.argv], stdin=subprocess.PIPE, stdout=output,
            stderr=output, env={**inherited(engine, os.environ), **what.env}, start_new_session=True,
        )  # fmt: skip


def _wait(engine: Hosted, address: tuple[str, int], server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while server.poll() is None and time.monotonic() < deadline:
        if probe(*address, engine.health_path).status == 200 and server.poll() is None:
            return
        time.sleep(0.02)
    from mscli.diagnosis.diagnose import start_failure  # reads the signatures; only a failed start needs it

    cause = start_failure(log.read_text(errors="replace"), engine.name, server.returncode)
    raise MscliError(
        Code.START_FAILED,
        f"{engine.name} did not start to pull: {cause.summary}",
        cause.remedy,
        {"cause": cause.code, "evidence": list(cause.evidence)},
    )


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server. Waits as long as its guard does."""
    server.communicate(END)


@frozen
class OnServer:
    """One model of a server that holds many: on a server that answers (`host`, `port`), or in a folder of this disk.

    `derived`: made by mscli for an instance; its bytes are shared with the model it is from. `instance`: that instance,
    where it is still remembered, or the running one that borrows the model. `profiles`: those that run this model.
    `ours`: mscli made or fetched it, and may free it.
    """

    engine: str
    host: str | None
    port: int | None
    folder: str | None
    name: str
    size_bytes: int
    derived: bool
    instance: str | None
    profiles: tuple[str, ...]
    ours: bool


def on_servers(catalog: Catalog, records: Records) -> tuple[OnServer, ...]:
    """The models of this catalogue, and those derived by mscli, on servers that answer and in folders of this disk.

    A model that a server lists is not told once more of its folder. Others are not told.
    """
    found: list[OnServer] = []
    for name in STARTABLE:
        known = engine(name)
        if isinstance(known, Hosted):
            for address in _addresses(known, records):
                found += _on_server(known, address, catalog, records)
            listed = {model.name for model in found}
            found += [model for model in _in_folders(known, catalog, records) if model.ours or model.name not in listed]
    return tuple(sorted(found, key=lambda model: -model.size_bytes))


def unneeded(models: Collection[OnServer], keep_profiles: Collection[str] | None) -> tuple[OnServer, ...]:
    """Derived models of instances that are gone, and (with `keep_profiles`) models in mscli's own store that none of
    these needs and no instance borrows. What others keep for themselves is never among them."""
    return tuple(
        model
        for model in models
        if model.ours
        and model.instance is None
        and (model.derived or (keep_profiles is not None and not set(model.profiles) & set(keep_profiles)))
    )


def remove(model: OnServer) -> None:
    """Remove it from its server's or mscli's own disk. Raises MscliError when that is refused."""
    known = engine(model.engine)
    assert isinstance(known, Hosted)
    if model.host is not None and model.port is not None:
        known.remove((model.host, model.port), model.name)
        return
    for kept in known.kept():
        if kept.ours and kept.name == model.name:
            known.drop(kept)


def _addresses(known: Hosted, records: Records) -> Iterator[tuple[str, int]]:
    """The servers that answer and are not an instance's own: those in use, and the one that clients here look for."""
    adopted = [record for record in records.all()[0] if record.plan.engine == known.name and record.identity is None]
    candidates = [(record.host, record.port) for record in adopted if running(record)]
    if here := known.running():
        candidates.append((here.host, here.port))
    for address in dict.fromkeys(candidates):
        if probe(*address, known.health_path).status == 200:
            yield address


def _on_server(known: Hosted, address: tuple[str, int], catalog: Catalog, records: Records) -> Iterator[OnServer]:
    users = _users(known, catalog)
    aliases = {_full(record.alias): record.name for record in records.all()[0]}
    prefix = known.alias_of("")
    for held in known.held(address):
        name, derived = _full(held.name), held.name.startswith(prefix)
        if derived or name in users:
            yield OnServer(
                known.name, *address, None, held.name, held.size_bytes, derived, aliases.get(name),
                users.get(name, ()), ours=derived,
            )  # fmt: skip


def _in_folders(known: Hosted, catalog: Catalog, records: Records) -> Iterator[OnServer]:
    users = _users(known, catalog)
    borrowers = {path: record.name for record in records.all()[0] if running(record) for path in record.weights}
    for kept in known.kept():
        if kept.ours or _full(kept.name) in users:
            profiles, instance = users.get(_full(kept.name), ()), borrowers.get(kept.manifest)
            yield OnServer(
                known.name, None, None, str(kept.folder), kept.name, kept.size_bytes, False, instance, profiles,
                kept.ours,
            )  # fmt: skip


def _users(known: Hosted, catalog: Catalog) -> dict[str, tuple[str, ...]]:
    """The profiles that run each model of the engine, by the model's full name."""
    users: dict[str, list[str]] = {}
    for profile in catalog.profiles.values():
        if profile.engine == known.name:
            users.setdefault(_full(catalog.model_of(profile)[1].source.repository), []).append(profile.name)
    return {name: tuple(sorted(profiles)) for name, profiles in users.items()}


def _full(name: str) -> str:
    """A name without a tag means its latest one."""
    return name.lower() if ":" in name else f"{name.lower()}:latest"
