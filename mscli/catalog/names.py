"""Names of models and of the ways to run them: those that a file lists, and what a name means as people type it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mscli.catalog.model import Model, Variant

# Words of a name that say nothing of which model it is.
_FILLERS = frozenset({"latest", "gguf", "hf", "co", "https", "huggingface", "library"})


def way_names(path: Path, sections: str = "ways") -> tuple[str, ...]:
    """The names that a file lists under `ways`, or other `sections` (ways|aliases), by its lines alone: quicker than
    reading YAML, and good for a broken file. None where it cannot be read, or is laid out otherwise."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""  # never wait for a pipe
    except OSError:
        return ()
    blocks = re.findall(rf"^(?:{sections}):.*\n((?:(?:[ #].*)?\n)*)", text + "\n", re.M)
    return tuple(name for block in blocks for name in re.findall(r"^  ([A-Za-z0-9][\w.-]*):", block, re.M))


def means(name: str, model: Model) -> bool:
    """Whether every telling word of `name` is one of the model's, and that of its family is among them."""
    family = next(word for word in _words(model.title) if word != "mistral")
    repositories = (variant.source.repository for variant in model.variants.values())
    known = {word for text in (model.name, model.title, *repositories) for word in _words(text)}
    asked = set(_words(_quantisation().sub("", name.lower()))) if named_source(name, model) is None else {family}
    size = f"{round(model.architecture.text.parameters / 1e9)}b"
    return family in asked and asked <= known | {size}


def engine_meant(word: str) -> str:
    """The engine that a user's word means, whatever its dots, hyphens and capitals: "llamacpp", "Mistral.rs". The word
    itself where it means none."""
    from mscli.catalog.profile import ENGINES

    return next((name for name in ENGINES if plain(name) == plain(word)), word)


def plain(name: str) -> str:
    """Its letters and digits alone."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _words(name: str) -> list[str]:
    """The telling words of a name, without a repository's owner: mistral-small3.1:24b -> mistral, small, 3.1, 24b."""
    found = re.findall(r"\d+b\b|[a-z]+|\d+(?:\.\d+)*", name.lower().rpartition("/")[2])
    return [word for word in found if word not in _FILLERS]


def named_source(name: str, model: Model) -> Variant | None:
    """The variant whose repository or tag `name` is."""
    wanted = name.lower().removeprefix("https://").removeprefix("huggingface.co/").removeprefix("hf.co/").rstrip("/")
    return next((each for each in model.variants.values() if each.source.repository.lower() == wanted), None)


def quantisation_in(name: str) -> str | None:
    """The quantization that a name tells."""
    found = _quantisation().search(name.lower())
    return found[1] if found else None


@cache
def _quantisation() -> re.Pattern[str]:
    from mscli.catalog.model import QUANTISATIONS  # a TAB needs the names of ways alone

    known = "|".join(re.escape(each) for each in sorted(QUANTISATIONS, key=len, reverse=True))
    return re.compile(rf"[-:_.]({known})(?![a-z0-9])")
