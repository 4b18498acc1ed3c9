"""Frozen values to JSON and back, checked: what is read from disk has the type it claims, or is refused by name.

One value is one object; values that are kept for later (what starts took, what was changed) are one line each.
"""

from __future__ import annotations

import json
import os
import stat
import types
import typing
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from mscli.frozen import fields, is_frozen

# What earlier versions called a field in the records and journals that they wrote.
RENAMED = {"wish": "overrides"}

T = TypeVar("T")
_KEPT_LINES = 1000
_READ_BYTES = 16 * 2**20


class Mismatch(ValueError):
    """The data does not have the shape of the value; the text says where (`plan.memory[0].gpu: ...`)."""


def to_json(value: object) -> Any:
    """`value` as plain JSON data: frozen values become objects, tuples lists, paths and enums text."""
    if is_frozen(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value


def from_json(kind: type[T], data: object) -> T:
    """The frozen value `kind` made from JSON data. Raises Mismatch for a missing key or a wrong type; unknown keys are
    refused too, since they mean that another version wrote the data."""
    return typing.cast(T, _read(kind, data, ""))


def load_lines(path: Path, kind: type[T]) -> tuple[T, ...]:
    """The values of a file with one JSON object a line, in order of time: the last 1,000.

    Lines that cannot be read are passed over, and so is a file: what is kept this way only refines later plans.
    """
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as handle:
            kept_as = os.fstat(handle.fileno())
            if not stat.S_ISREG(kept_as.st_mode):  # a pipe would never end
                return ()
            handle.seek(max(0, kept_as.st_size - _READ_BYTES))
            lines = handle.read(_READ_BYTES).decode(errors="replace").splitlines()
    except OSError:
        return ()
    found = []
    for line in lines[-_KEPT_LINES:]:
        try:
            found.append(from_json(kind, json.loads(line)))
        except (ValueError, RecursionError, Mismatch):
            continue
    return tuple(found)


def append_lines(path: Path, fresh: Sequence[object]) -> None:
    """Add values at the end of such a file. They are written at once, so that two processes do not mix their lines.

    Raises OSError when they cannot be written; a pipe that nobody reads is not waited for.
    """
    if not fresh:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o666), "a") as handle:
        handle.write("".join(json.dumps(to_json(item)) + "\n" for item in fresh))


def _read(kind: Any, data: object, where: str) -> object:
    if kind is object or kind is Any:
        return data
    if is_frozen(kind):
        return _read_frozen(kind, data, where)
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return _read_union(typing.get_args(kind), data, where)
    if origin is tuple:
        return _read_tuple(typing.get_args(kind), data, where)
    if origin is not None and issubclass(origin, Mapping):
        return _read_mapping(typing.get_args(kind)[1], data, where)
    return _read_scalar(kind, data, where)


def _read_frozen(kind: Any, data: object, where: str) -> object:
    if not isinstance(data, dict):
        raise Mismatch(f"{where or 'top level'}: expected an object, not {_name(data)}")
    data = {RENAMED.get(str(name), str(name)): value for name, value in data.items()}
    hints = _hints(kind)
    known = {f.name: f for f in fields(kind)}
    if unknown := sorted(set(data) - set(known)):
        raise Mismatch(f"{_join(where, unknown[0])}: unknown key")
    values = {}
    for name, field in known.items():
        if name in data:
            values[name] = _read(hints[name], data[name], _join(where, name))
        elif field.required:
            raise Mismatch(f"{_join(where, name)}: missing")
    return kind(**values)


@cache
def _hints(kind: type) -> Mapping[str, Any]:
    """Python reads the annotations of a class anew each time, which took most of the time that a record took."""
    return typing.get_type_hints(kind)


def _read_union(kinds: tuple[Any, ...], data: object, where: str) -> object:
    if data is None and type(None) in kinds:
        return None
    faults = []
    for kind in kinds:
        try:
            return _read(kind, data, where)
        except Mismatch as fault:
            faults.append(str(fault))
    raise Mismatch(faults[0])


def _read_tuple(kinds: tuple[Any, ...], data: object, where: str) -> object:
    if not isinstance(data, list):
        raise Mismatch(f"{where}: expected a list, not {_name(data)}")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(_read(kinds[0], item, f"{where}[{i}]") for i, item in enumerate(data))
    if len(kinds) != len(data):
        raise Mismatch(f"{where}: expected {len(kinds)} items, not {len(data)}")
    return tuple(_read(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, data, strict=True)))


def _read_mapping(kind: Any, data: object, where: str) -> object:
    if not isinstance(data, dict):
        raise Mismatch(f"{where}: expected an object, not {_name(data)}")
    return {str(key): _read(kind, item, _join(where, str(key))) for key, item in data.items()}


def _read_scalar(kind: Any, data: object, where: str) -> object:
    if kind is Path and isinstance(data, str):
        return Path(data)
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if type(data) is not kind:
        raise Mismatch(f"{where}: expected {kind.__name__}, not {_name(data)}")
    return data


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _name(data: object) -> str:
    return "nothing" if data is None else f"{type(data).__name__} {str(data)[:40]!r}"
