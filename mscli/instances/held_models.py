"""Models of this catalogue on the disks of servers that hold many, and which profiles and instances need them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from mscli.catalog.load import Catalog
from mscli.engines.engine import Hosted
from mscli.engines.table import STARTABLE, engine
from mscli.instances.probe import probe
from mscli.instances.records import Records
from mscli.instances.running import running


@dataclass(frozen=True)
class OnServer:
    """One model on a server. `derived`: made by mscli for an instance; its bytes are shared with the model it is from.

    `instance`: that instance, where it is still remembered. `profiles`: those that run this model.
    """

    engine: str
    host: str
    port: int
    name: str
    size_bytes: int
    derived: bool
    instance: str | None
    profiles: tuple[str, ...]


def on_servers(catalog: Catalog, records: Records) -> tuple[OnServer, ...]:
    """The models of this catalogue, and those derived by mscli, on every server that answers. Others are not told."""
    found = []
    for name in STARTABLE:
        known = engine(name)
        if isinstance(known, Hosted):
            for address in _addresses(known, records):
                found += list(_models(known, address, catalog, records))
    return tuple(sorted(found, key=lambda model: -model.size_bytes))


def unneeded(models: Collection[OnServer], keep_profiles: Collection[str] | None) -> tuple[OnServer, ...]:
    """Derived models of instances that are gone, and (with `keep_profiles`) library models that none of these needs."""
    return tuple(
        model
        for model in models
        if (model.derived and model.instance is None)
        or (not model.derived and keep_profiles is not None and not set(model.profiles) & set(keep_profiles))
    )


def remove(model: OnServer) -> None:
    """Remove it from its server's disk. Raises MscliError when the server refuses."""
    known = engine(model.engine)
    assert isinstance(known, Hosted)
    known.remove((model.host, model.port), model.name)


def _addresses(known: Hosted, records: Records) -> Iterator[tuple[str, int]]:
    seen = set()
    own = [record for record in records.all()[0] if record.plan.engine == known.name and running(record)]
    candidates = [(record.host, record.port) for record in own]
    if adopted := known.adopt():
        candidates.append((adopted.host, adopted.port))
    for address in candidates:
        if address not in seen and probe(*address, known.health_path).status == 200:
            seen.add(address)
            yield address


def _models(known: Hosted, address: tuple[str, int], catalog: Catalog, records: Records) -> Iterator[OnServer]:
    users: dict[str, list[str]] = {}
    for profile in catalog.profiles.values():
        source = catalog.model_of(profile)[1].source
        if profile.engine == known.name:
            users.setdefault(_full(source.repository), []).append(profile.name)
    aliases = {_full(record.alias): record.name for record in records.all()[0]}
    prefix = known.alias_of("")
    for held in known.held(address):
        name, derived = _full(held.name), held.name.startswith(prefix)
        if derived or name in users:
            profiles = tuple(sorted(users.get(name, ())))
            yield OnServer(known.name, *address, held.name, held.size_bytes, derived, aliases.get(name), profiles)


def _full(name: str) -> str:
    """A name without a tag means its latest one."""
    return name.lower() if ":" in name else f"{name.lower()}:latest"
