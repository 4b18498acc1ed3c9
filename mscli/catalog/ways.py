"""The ways to run a model: each is a profile that the model's file lists under `ways`, completed by what the ways of
one engine have in common (engines.yaml)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path

from mscli.catalog.document import Document, Fault, KeyPath, Node, invalid, read_document
from mscli.catalog.files import profile_in, sees
from mscli.catalog.model import QUANTISATIONS, Model
from mscli.catalog.profile import Profile
from mscli.catalog.schema import PROFILE
from mscli.catalog.types import Key, Table, map_of, refuse, word
from mscli.errors import MscliError
from mscli.frozen import replace

COMMON = "engines.yaml"

_OWN = ("title", "engine", "model", "variant", "device", "automatic", "rank", "notes")  # of each way
_SHARED = tuple(replace(key, default=None) for key in PROFILE.keys if key.name not in _OWN)
_STORED = Key("stored", map_of(Table(_SHARED), word(QUANTISATIONS, "quantisation")), "the same by quantization", None)
_COMMON = Table((*_SHARED, _STORED))
Common = Callable[[str], Mapping[str, Node]]
"""What the ways of an engine have in common."""


def common_of(path: Path, read: Callable[[Path], Document] = read_document) -> Common:
    """What the ways of each engine have in common, by `path`, which is `read` when it is first asked for.

    Raises MscliError(PROFILE_INVALID) with file, line and key.
    """

    @lru_cache(None)
    def root() -> Mapping[str, Node]:
        return _entries(read(path).root)

    @lru_cache(None)
    def common(engine: str) -> Mapping[str, Node]:
        faults: list[Fault] = []
        if (node := root().get(engine)) is None:
            return {}
        _COMMON(node, (engine,), faults)
        if faults:
            raise invalid(path, faults)
        return _entries(node)

    return common


def ways_of(
    document: Document, models: Mapping[str, Model | MscliError], common: Common
) -> Iterator[tuple[str, Callable[[], Profile]]]:
    """Each way, and each old name of one, that a model's file lists, and what reads it: it raises as `read_profile`."""
    read, sections = partial(_way, document, models, common), _entries(document.root)
    ways, aliases = (_entries(sections.get(section)) for section in ("ways", "aliases"))
    for name, way in ways.items():
        yield name, partial(read, ("ways", name), way)
    for name, alias in aliases.items():
        yield name, partial(_alias, read, ways, document, ("aliases", name), alias)


def _way(
    document: Document, models: Mapping[str, Model | MscliError], common: Common, key: KeyPath, way: Node
) -> Profile:
    model = document.path.stem
    if not isinstance(way.value, Mapping):
        raise invalid(document.path, [Fault(way.line, key, "expected the keys of a profile")])
    if "model" in way.value:
        raise invalid(document.path, [Fault(way.value["model"].line, (*key, "model"), "is this file's own model")])
    node = replace(way, value={**_completed(way, models.get(model), common), "model": Node(way.line, model, model)})
    return profile_in(document, node, key, key[-1], models)


def _alias(
    read: Callable[[KeyPath, Node], Profile], ways: Mapping[str, Node], document: Document, key: KeyPath, alias: Node
) -> Profile:
    """An old name: the way that it stands for (`of`), with what it changes of it; started by name only."""
    own = dict(_entries(alias))
    of = own.pop("of", None)
    if of is None or of.text not in ways:
        wrong = refuse("expected `of` with the name of a way", of.text if of else "", list(ways))
        raise invalid(document.path, [Fault(alias.line, (*key, "of"), wrong.message, wrong.nearest)])
    way = ways[of.text]
    named = {"automatic": Node(alias.line, False, "false")}
    profile = read(key, Node(alias.line, {**_over(_entries(way), own), **named}))
    return replace(profile, instead=" ".join((of.text, *(_typed(profile, name) for name in own if name in _OPTIONS))))


_OPTIONS = ("gpus", "engine", "images", "offload")


def _typed(profile: Profile, key: str) -> str:
    """The option that says what an old name changes."""
    return {
        "gpus": f"--gpus {','.join(map(str, range(profile.gpus[0])))}" if profile.gpus else "",
        "engine": "--container",
        "images": f"--images {profile.images}",
        "offload": f"--offload --ctx {profile.context.target or profile.context.floor}",
    }[key]


def _completed(way: Node, model: Model | MscliError | None, common: Common) -> dict[str, Node]:
    """The way's own keys over those of its engine's ways."""
    own = _entries(way)
    engine, variant = (own[key].text if key in own else "" for key in ("engine", "variant"))
    shared = dict(common(engine))
    stored = _entries(shared.pop("stored", None))
    weights = model.variants.get(variant) if isinstance(model, Model) else None
    if isinstance(model, Model) and weights:
        shared = _over(shared, _entries(stored.get(weights.quantisation)))
        if not sees(model, weights):
            shared.pop("images", None)
    return _over(shared, own)


def _over(shared: Mapping[str, Node], own: Mapping[str, Node]) -> dict[str, Node]:
    """Both, `own` first; a section of keys is merged likewise."""
    merged = {**shared, **own}
    for key in shared.keys() & own.keys():
        if isinstance(shared[key].value, Mapping) and isinstance(own[key].value, Mapping):
            merged[key] = replace(own[key], value=_over(_entries(shared[key]), _entries(own[key])))
    return merged


def _entries(node: Node | None) -> Mapping[str, Node]:
    return node.value if node is not None and isinstance(node.value, Mapping) else {}
