"""The catalogue: every profile and model that comes with mscli, overridden by the user's own of the same name.

A model's file lists the ways to run it: each is a profile, completed by what the ways of one engine have in common
(engines.yaml).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Generic, TypeVar

from mscli.catalog.document import Document, Fault, KeyPath, Node, invalid, read_document
from mscli.catalog.files import model_in, profile_in, read_profile, sees
from mscli.catalog.model import QUANTISATIONS, Model, Variant
from mscli.catalog.names import means, named_source, plain, quantisation_in, way_names
from mscli.catalog.profile import Profile, on_engine
from mscli.catalog.schema import NAME, PROFILE
from mscli.catalog.types import Key, Table, map_of, nearest, refuse, word
from mscli.errors import Code, MscliError
from mscli.frozen import field, frozen, replace

_Value = TypeVar("_Value")
Reads = Callable[[Path], Document]


LISTS = "ways|aliases"


@frozen
class Ways:
    """What the name of a model or a family means: `models`, the newest first, and in `profiles` the ways to run each
    on GPUs, any of which may be chosen, model by model, the preferred first."""

    name: str
    models: tuple[str, ...]
    profiles: tuple[Profile, ...]


@frozen
class Catalog:
    """Everything that loads, and in `broken` the errors of the files that do not. `aliases`: old names of profiles.

    A user's broken file also hides the shipped one of its name: what the user meant to change must not run unchanged.
    """

    profiles: Mapping[str, Profile]
    models: Mapping[str, Model]
    broken: tuple[MscliError, ...] = ()
    aliases: Mapping[str, Profile] = field(default_factory=dict)

    def profile(self, name: str) -> Profile:
        """The profile called `name`, also by an old name. Raises PROFILE_UNKNOWN with the nearest name, or its file's
        PROFILE_INVALID."""
        if found := self.profiles.get(name) or self.aliases.get(name):
            return found
        broken = self._broken("profile")
        if name in broken:
            raise broken[name]
        raise self.unknown(name)

    def unknown(self, name: str) -> MscliError:
        """The error for a name that is no profile's: what it means, or the nearest name that would do."""
        known, ways = [*self.profiles, *self._broken("profile")], self.ways(name)
        sources = [each.source for model in self.models.values() for each in model.variants.values()]
        tags = {source.repository.partition(":")[0] for source in sources if source.kind == "ollama"}
        running = [way.name for way in ways.profiles] if ways else []
        close = running[0] if running else nearest(name, [*known, *sorted(tags)], likeness=0.6)
        details = {"name": name, "nearest": close, "profiles": sorted(known)}
        if running:
            hint = (
                f"that is a model; profiles that run it: {', '.join(running)}. `mscli up {name}` takes the best that "
                "fits"
            )
        elif not re.fullmatch(NAME, name) or name.endswith(".yaml"):
            hint = f"to use a profile file: --file {name}"
        else:
            hint = (f"Did you mean {close}? " if close else "") + "To list profiles: mscli profiles"
        return MscliError(Code.PROFILE_UNKNOWN, f"there is no profile '{name}'", hint, details)

    def ways(self, name: str) -> Ways | None:
        """The ways to run the model or family that `name` means, as people type it: its name or title, a family's
        ("magistral", "small"), a tag of Ollama's library, a repository on Hugging Face. None where it means none.

        A quantization in the name, or a repository of quantized weights, leaves only the ways with such weights.
        """
        if plain(name) in map(plain, [*self.profiles, *self.aliases, *self._broken("profile")]):
            return None  # a profile's name, perhaps mistyped
        if name.startswith((".", "/", "~")):
            return None  # a path
        found = [model for model in self.models.values() if not model.stand_in and means(name, model)]
        models = sorted(found, key=lambda model: model.released, reverse=True)
        profiles = [
            replace(profile, automatic=True)
            for model in models
            for profile in sorted(self.profiles.values(), key=lambda profile: profile.rank)
            if profile.model == model.name and self._may_be_chosen(profile, name, model)
        ]
        return Ways(name, tuple(model.name for model in models), tuple(profiles)) if profiles else None

    def for_engine(self, engine: str | None) -> Catalog:
        """The catalogue for whoever names an engine: with profiles for vLLM as they run in a container, where that is
        named; and of an engine none of whose profiles is automatic, those on GPUs alone are."""
        if engine is None:
            return self
        profiles = {name: on_engine(profile, engine) for name, profile in self.profiles.items()}
        own = [profile for profile in profiles.values() if profile.engine == engine]
        if not any(profile.automatic for profile in own):
            wanted = [profile for profile in own if profile.device == "gpu" and not profile.offload]
            profiles |= {profile.name: replace(profile, automatic=True) for profile in wanted}
        aliases = {name: on_engine(profile, engine) for name, profile in self.aliases.items()}
        return replace(self, profiles=profiles, aliases=aliases)

    def model_of(self, profile: Profile) -> tuple[Model, Variant]:
        """The model and the variant of its weights that `profile` runs."""
        model = self.models[profile.model]
        return model, model.variants[profile.variant]

    def _may_be_chosen(self, profile: Profile, name: str, model: Model) -> bool:
        """Whether `mscli up NAME` may take this profile of a model that `name` means: it runs on GPUs alone, with
        weights as `name` has them; where it tells none, `mscli up` alone takes it, or takes its like of another model.
        """
        if profile.device != "gpu" or profile.offload:
            return False
        named, stored = named_source(name, model), model.variants[profile.variant]
        if told := quantisation_in(name):
            return stored.quantisation == told
        if named is not None and named.quantisation != "bf16":
            return stored.source.repository == named.source.repository
        automatic = [each for each in self.profiles.values() if each.automatic]
        if any(each.model == model.name for each in automatic):
            return profile.automatic
        return stored.quantisation in {self.model_of(each)[1].quantisation for each in automatic}

    def _broken(self, sort: str) -> dict[str, MscliError]:
        return {str(error.details[sort]): error for error in self.broken if sort in error.details}


class _Store(Mapping[str, _Value | MscliError], Generic[_Value]):
    """Things by name, each read when first asked for: its value, or the error of its file."""

    def __init__(self, sort: str, reads: Mapping[str, Callable[[], _Value]]) -> None:
        self._sort = sort
        self._reads = reads
        self._known: dict[str, _Value | MscliError] = {}

    def __getitem__(self, name: str) -> _Value | MscliError:
        if name not in self._known:
            try:
                self._known[name] = self._reads[name]()
            except MscliError as error:
                error.details[self._sort] = name
                self._known[name] = error
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._reads)

    def __len__(self) -> int:
        return len(self._reads)


class _Shelves:
    """The files of both folders, the user's last so that they win; each is read once, when first asked for."""

    def __init__(self, shipped: Path, user: Path | None, read: Reads) -> None:
        theirs = _files(user / "models") if user else {}
        ours = _shipped(shipped / "models")
        self.model_files = (*ours.values(), *theirs.values())
        self.document = lru_cache(None)(read)
        self.common = common_of(shipped / COMMON, self.document)
        self.own = _files(user) if user else {}
        reads = {name: partial(self._model, path) for name, path in (ours | theirs).items()}
        self.models: _Store[Model] = _Store("model", reads)

    def profiles(self, files: Iterable[Path]) -> _Store[Profile]:
        """The ways that these models' files list, and the user's own profiles.

        A file that cannot be read leaves the names that its lines show, each with the file's error.
        """
        reads: dict[str, Callable[[], Profile]] = {}
        models: dict[str, str] = {}
        for path in files:
            for name, read in self._ways(path):
                free = models.setdefault(name, path.stem) == path.stem
                reads[name] = read if free else partial(_taken, self.document(path), name, models[name])
        reads |= {name: partial(read_profile, path, self.models) for name, path in self.own.items()}
        return _Store("profile", reads)

    def _ways(self, path: Path) -> Iterable[tuple[str, Callable[[], Profile]]]:
        try:
            return ways_of(self.document(path), self.models, self.common)
        except MscliError as error:
            return [(name, partial(_raise, error)) for name in way_names(path, LISTS)]

    def _model(self, path: Path) -> Model:
        return model_in(self.document(path))


def _raise(error: MscliError) -> Profile:
    raise MscliError(error.code, error.message, error.hint, dict(error.details))


def _taken(document: Document, name: str, model: str) -> Profile:
    """Raise PROFILE_INVALID for a way whose name is another model's: a copied file would replace that in silence."""
    message = f"is a way to run {model}: give it another name, or leave it out"
    raise invalid(document.path, document.located([Fault(0, ("ways", name), message)]))


def load_catalog(shipped: Path, user: Path | None, read: Reads = read_document) -> Catalog:
    """Every profile and model below `shipped` and `user`; the user's files override shipped ones of the same name.
    `read`: what reads a model's file.

    Broken files are collected, never raised. Raises MscliError(FILE) when a folder cannot be listed.
    """
    shelves = _Shelves(shipped, user, read)
    models, profiles = shelves.models, shelves.profiles(shelves.model_files)
    errors = [entry for store in (models, profiles) for entry in store.values() if isinstance(entry, MscliError)]
    good = {name: entry for name, entry in profiles.items() if isinstance(entry, Profile)}
    return Catalog(
        {name: profile for name, profile in good.items() if not profile.instead},
        {name: entry for name, entry in models.items() if isinstance(entry, Model)},
        tuple(errors),
        {name: profile for name, profile in good.items() if profile.instead},
    )


def load_one(name: str, shipped: Path, user: Path | None, read: Reads = read_document) -> tuple[Profile, Model]:
    """The profile called `name` and its model; reads only the files that have them. Raises as Catalog.profile does."""
    shelves = _Shelves(shipped, user, read)
    files = [path for path in shelves.model_files if name in way_names(path, LISTS)]
    profiles = shelves.profiles(() if name in shelves.own else files)
    if name not in profiles:
        catalog = load_catalog(shipped, user, read)
        found = catalog.profile(name)
        return found, catalog.models[found.model]
    profile = profiles[name]
    if isinstance(profile, MscliError):
        raise profile
    model = shelves.models[profile.model]
    assert isinstance(model, Model)  # a profile loads only with its model
    return profile, model


def load_profile_file(path: Path, catalog: Catalog) -> Profile:
    """The profile in a file of its own (`mscli up --file`). Raises MscliError(PROFILE_INVALID)."""
    return read_profile(path, {**catalog._broken("model"), **catalog.models})


def _yaml_files(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.iterdir()) if _counts(path)}


def _shipped(folder: Path) -> dict[str, Path]:
    try:
        return _yaml_files(folder)
    except OSError as error:
        message = f"the profiles that come with mscli cannot be read: {folder}: {error.strerror}"
        raise MscliError(Code.FILE, message, "reinstall mscli") from error


def _files(folder: Path) -> dict[str, Path]:
    """The user's YAML files in `folder` by stem; none where there is no such folder."""
    try:
        return _yaml_files(folder)
    except FileNotFoundError:
        return {}
    except OSError as error:
        message = f"your profiles cannot be read: {folder}: {error.strerror}"
        raise MscliError(Code.FILE, message, f"make {folder} a readable folder, or remove it") from error


def _counts(path: Path) -> bool:
    return path.suffix == ".yaml" and not path.name.startswith(".")


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
