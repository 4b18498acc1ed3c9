"""Immutable values that cost little to declare.

`@dataclass(frozen=True)` compiles six methods for each class, half a millisecond of every start; `mscli chat` loads
forty such classes, `mscli up` three times as many. Here only `__init__` is compiled, when the class is first used, and
most are not in one start; the other methods are shared. In all else such a class is a dataclass: `field`, `fields`,
`replace`, `asdict` and inheritance work as there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

_T = TypeVar("_T")


def _set(_: object, name: str, __: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


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


def _compiled(cls: type) -> Callable[..., None]:
    """The `__init__` of a class: its fields as parameters, with their defaults, and those that only a keyword sets."""
    names: dict[str, Any] = {"_unset": object()}
    head, body = ["self"], ["_own = self.__dict__"]
    for place, field in enumerate(sorted(dataclasses.fields(cls), key=lambda field: bool(field.kw_only))):
        if field.kw_only and "*" not in head:
            head.append("*")
        default, made = f"_{place}", field.default_factory is not dataclasses.MISSING
        names[default] = field.default_factory if made else field.default
        optional = made or field.default is not dataclasses.MISSING
        head.append(f"{field.name}={'_unset' if made else default}" if optional else field.name)
        value = f"{default}() if {field.name} is _unset else {field.name}" if made else field.name
        body.append(f"_own[{field.name!r}] = {value}")
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    exec(f"def __init__({', '.join(head)}):\n " + "\n ".join(body), names)
    init: Callable[..., None] = names["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    return init


def _later(cls: Any) -> Callable[..., None]:
    """An `__init__` that puts the compiled one into its place."""

    def __init__(self: object, *args: object, **named: object) -> None:
        cls.__init__ = _compiled(cls)
        cls.__init__(self, *args, **named)

    return __init__


_METHODS = {"__setattr__": _set, "__delattr__": _delete, "__eq__": _equal, "__hash__": _hash, "__repr__": _text}

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform

    @dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
    def frozen(cls: type[_T]) -> type[_T]:
        """Make the class an immutable dataclass, compared and hashed by its fields."""
else:

    def frozen(cls):
        """As declared above."""
        made = dataclasses.dataclass(init=False, repr=False, eq=False)(cls)
        for name, method in {**_METHODS, "__init__": _later(made)}.items():
            if name not in vars(cls):
                setattr(made, name, method)
        return made
