"""The catalogue: every profile and model that comes with mscli, overridden by the user's own of the same name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Generic, TypeVar

from mscli.catalog.document import Document, Fault, invalid, read_document
from mscli.catalog.files import model_in, read_profile
from mscli.catalog.model import QUANTISATIONS, Model, Variant
from mscli.catalog.profile import Profile
from mscli.catalog.schema import NAME
from mscli.catalog.types import nearest
from mscli.catalog.way_names import way_names
from mscli.catalog.ways import COMMON, common_of, ways_of
from mscli.errors import Code, MscliError
from mscli.frozen import field, frozen, replace

_Value = TypeVar("_Value")
Reads = Callable[[Path], Document]


LISTS = "ways|aliases"
# Words of a name that say nothing of which model it is.
_FILLERS = frozenset({"latest", "gguf", "hf", "co", "https", "huggingface", "library"})
_QUANTISATION = re.compile(
    r"[-:_.](" + "|".join(re.escape(each) for each in sorted(QUANTISATIONS, key=len, reverse=True)) + r")(?![a-z0-9])"
)


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
        if _plain(name) in map(_plain, [*self.profiles, *self.aliases, *self._broken("profile")]):
            return None  # a profile's name, perhaps mistyped
        if name.startswith((".", "/", "~")):
            return None  # a path
        found = [model for model in self.models.values() if not model.stand_in and _means(name, model)]
        models = sorted(found, key=lambda model: model.released, reverse=True)
        profiles = [
            replace(profile, automatic=True)
            for model in models
            for profile in sorted(self.profiles.values(), key=lambda profile: profile.rank)
            if profile.model == model.name and self._may_be_chosen(profile, name, model)
        ]
        return Ways(name, tuple(model.name for model in models), tuple(profiles)) if profiles else None

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
        named, stored = _source(name, model), model.variants[profile.variant]
        if told := _QUANTISATION.search(name.lower()):
            return stored.quantisation == told[1]
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


def _means(name: str, model: Model) -> bool:
    """Whether every telling word of `name` is one of the model's, and that of its family is among them."""
    family = next(word for word in _words(model.title) if word != "mistral")
    repositories = (variant.source.repository for variant in model.variants.values())
    known = {word for text in (model.name, model.title, *repositories) for word in _words(text)}
    asked = set(_words(_QUANTISATION.sub("", name.lower()))) if _source(name, model) is None else {family}
    size = f"{round(model.architecture.text.parameters / 1e9)}b"
    return family in asked and asked <= known | {size}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _words(name: str) -> list[str]:
    """The telling words of a name, without a repository's owner: mistral-small3.1:24b -> mistral, small, 3.1, 24b."""
    found = re.findall(r"\d+b\b|[a-z]+|\d+(?:\.\d+)*", name.lower().rpartition("/")[2])
    return [word for word in found if word not in _FILLERS]


def _source(name: str, model: Model) -> Variant | None:
    """The variant whose repository or tag `name` is."""
    wanted = name.lower().removeprefix("https://").removeprefix("huggingface.co/").removeprefix("hf.co/").rstrip("/")
    return next((each for each in model.variants.values() if each.source.repository.lower() == wanted), None)
