"""Immutable values that cost little to declare.

`@dataclass(frozen=True)` compiles six methods for each class, half a millisecond of every start; `mscli chat` loads
forty such classes, `mscli up` three times as many. Here only `__init__` is compiled and the other methods are shared.
In all else such a class is a dataclass: `field`, `fields`, `replace`, `asdict` and inheritance work as there.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, TypeVar

_T = TypeVar("_T")


def _set(self: Any, name: str, value: object) -> None:
    # `__init__` sets each field once.
    if name in self.__dict__ or name not in self.__dataclass_fields__:
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
    self.__dict__[name] = value


def _delete(_: object, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _compared(value: Any) -> tuple[object, ...]:
    return tuple(getattr(value, field.name) for field in dataclasses.fields(value) if field.compare)


def _equal(self: object, other: object) -> bool:
    return _compared(self) == _compared(other) if other.__class__ is self.__class__ else NotImplemented


def _hash(self: object) -> int:
    return hash(_compared(self))


def _text(self: Any) -> str:
    shown = (f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self) if field.repr)
    return f"{self.__class__.__qualname__}({', '.join(shown)})"


_METHODS = {"__setattr__": _set, "__delattr__": _delete, "__eq__": _equal, "__hash__": _hash, "__repr__": _text}

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform

    @dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
    def frozen(cls: type[_T]) -> type[_T]:
        """Make the class an immutable dataclass, compared and hashed by its fields."""
else:

    def frozen(cls):
        """As declared above."""
        made = dataclasses.dataclass(repr=False, eq=False)(cls)
        for name, method in _METHODS.items():
            if name not in vars(cls):
                setattr(made, name, method)
        return made
