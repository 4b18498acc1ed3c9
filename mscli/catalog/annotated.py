"""A user's own profile, written from the annotated one: every key explained, with another profile's values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from mscli.catalog.load import ANNOTATED
from mscli.catalog.profile import Profile
from mscli.catalog.schema import NAME
from mscli.errors import Code, MscliError
from mscli.paths import shipped_profiles

_LINE = re.compile(r"(?P<indent> *)(?P<key>[a-z_]+):(?P<value>.*)")


def new_profile(name: str, based_on: Profile | None, folder: Path) -> Path:
    """Write `folder`/NAME.yaml, with the values of `based_on` (None: the annotated example's) and every key explained.

    The folder is made where it is missing. Raises MscliError: USAGE for a name that cannot be one, FILE when the file
    exists already (it is never overwritten) or cannot be written.
    """
    if not re.fullmatch(NAME, name) or name == ANNOTATED:
        message = f"'{name}' cannot be a profile's name"
        raise MscliError(Code.USAGE, message, "use letters, digits, '.', '_' and '-', beginning with a letter or digit")
    path = folder / f"{name}.yaml"
    try:
        text = "\n".join(_filled(_template(), based_on)) + "\n"
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        hint = f"edit it, or choose another name; {path} was left as it is"
        raise MscliError(Code.FILE, f"there is a profile '{name}' of yours already", hint) from error
    except OSError as error:
        raise MscliError(
            Code.FILE, f"{path} cannot be written: {error.strerror}", "choose a writable folder"
        ) from error
    return path


def _template() -> list[str]:
    lines = (shipped_profiles() / f"{ANNOTATED}.yaml").read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    own = (
        "# A profile of your own. `mscli profiles validate` checks it, `mscli profiles` lists it with the shipped ones."
    )
    return [own, *lines[start:]]


def _filled(lines: list[str], based_on: Profile | None) -> Iterator[str]:
    """The template's lines with every value replaced; a section's keys stand below it, indented."""
    section: Any = based_on
    for line in lines:
        match = _LINE.fullmatch(line)
        if based_on is None or not match:
            yield line
            continue
        if not match["indent"]:
            section = based_on
        value = getattr(section, match["key"])
        if is_dataclass(value):
            section = value
            yield line
        else:
            yield f"{match['indent']}{match['key']}: {_written(value)}"


def _written(value: Any) -> str:
    """A value in YAML on one line. JSON is YAML, so whatever may need quotes gets JSON's."""
    if isinstance(value, str):
        return (
            value
            if re.fullmatch(r"[A-Za-z][A-Za-z ._-]*|[0-9]+(\.[0-9]+){3}", value) and _stays_text(value)
            else _json(value)
        )
    return _json(dict(value) if isinstance(value, Mapping) else value)


def _stays_text(text: str) -> bool:
    return text.lower() not in ("true", "false", "null") and text == text.strip()


def _json(value: object) -> str:
    """JSON as YAML reads it: emoji unescaped (YAML joins no surrogate pairs), control and break characters escaped."""
    text = json.dumps(value, ensure_ascii=False)
    return re.sub("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]", lambda match: f"\\u{ord(match[0]):04x}", text)
