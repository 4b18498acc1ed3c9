"""The catalogue: every profile and model that comes with mscli, overridden by the user's own of the same name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Generic, TypeVar

from mscli.catalog.files import ANNOTATED, read_model, read_profile
from mscli.catalog.model import QUANTISATIONS, Model, Variant
from mscli.catalog.profile import Profile
from mscli.catalog.schema import NAME
from mscli.catalog.types import nearest
from mscli.errors import Code, MscliError
from mscli.frozen import frozen

_Value = TypeVar("_Value")


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
    """Everything that loads, and in `broken` the errors of the files that do not.

    A user's broken file also hides the shipped one of its name: what the user meant to change must not run unchanged.
    """

    profiles: Mapping[str, Profile]
    models: Mapping[str, Model]
    broken: tuple[MscliError, ...] = ()

    def profile(self, name: str) -> Profile:
        """The profile called `name`. Raises PROFILE_UNKNOWN with the nearest name, or its file's PROFILE_INVALID."""
        if name in self.profiles:
            return self.profiles[name]
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
        if _plain(name) in map(_plain, [*self.profiles, *self._broken("profile")]):
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
    """One folder's files by name, each parsed when first asked for: its value, or the error of its file."""

    def __init__(self, sort: str, files: Mapping[str, Path], read: Callable[[Path], _Value]) -> None:
        self._sort = sort
        self._files = files
        self._read = read
        self._known: dict[str, _Value | MscliError] = {}

    def __getitem__(self, name: str) -> _Value | MscliError:
        if name not in self._known:
            try:
                self._known[name] = self._read(self._files[name])
            except MscliError as error:
                error.details[self._sort] = name
                self._known[name] = error
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def load_catalog(shipped: Path, user: Path | None) -> Catalog:
    """Every profile and model below `shipped` and `user`; the user's files override shipped ones of the same name.

    Broken files are collected, never raised. Raises MscliError(FILE) when a folder cannot be listed.
    """
    models, profiles = _shelves(shipped, user)
    errors = [entry for store in (models, profiles) for entry in store.values() if isinstance(entry, MscliError)]
    return Catalog(
        {name: entry for name, entry in profiles.items() if isinstance(entry, Profile)},
        {name: entry for name, entry in models.items() if isinstance(entry, Model)},
        tuple(errors),
    )


def load_one(name: str, shipped: Path, user: Path | None) -> tuple[Profile, Model]:
    """The profile called `name` and its model, parsing those two files only. Raises as Catalog.profile does."""
    models, profiles = _shelves(shipped, user)
    if name not in profiles:
        raise load_catalog(shipped, user).unknown(name)
    profile = profiles[name]
    if isinstance(profile, MscliError):
        raise profile
    model = models[profile.model]
    assert isinstance(model, Model)  # a profile loads only with its model
    return profile, model


def load_profile_file(path: Path, catalog: Catalog) -> Profile:
    """The profile in a file of its own (`mscli up --file`). Raises MscliError(PROFILE_INVALID)."""
    return read_profile(path, {**catalog._broken("model"), **catalog.models})


def _shelves(shipped: Path, user: Path | None) -> tuple[_Store[Model], _Store[Profile]]:
    models = _Store("model", _files(shipped / "models", user / "models" if user else None), read_model)
    files = _files(shipped, user)
    return models, _Store("profile", files, lambda path: read_profile(path, models))


def _files(shipped: Path, user: Path | None) -> dict[str, Path]:
    """The YAML files of both folders by stem, the user's last so that they win."""
    try:
        found = {path.stem: path for path in sorted(shipped.iterdir()) if _counts(path) and path.stem != ANNOTATED}
    except OSError as error:
        message = f"the profiles that come with mscli cannot be read: {shipped}: {error.strerror}"
        raise MscliError(Code.FILE, message, "reinstall mscli") from error
    if user is None:
        return found
    try:
        return found | {path.stem: path for path in sorted(user.iterdir()) if _counts(path)}
    except FileNotFoundError:
        return found
    except OSError as error:
        message = f"your profiles cannot be read: {user}: {error.strerror}"
        raise MscliError(Code.FILE, message, f"make {user} a readable folder, or remove it") from error


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
