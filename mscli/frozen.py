"""Immutable values that cost little to declare.

`@dataclass(frozen=True)` takes half a millisecond for each class, and `dataclasses` itself imports what reads Python's
source: together a fifth of the time that `mscli up` needs before it starts an engine. Here a class costs a tenth of
that. For whoever looks from outside it is a dataclass: `dataclasses.fields`, `replace` and `asdict` understand it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

_T = TypeVar("_T")
_UNSET: Any = object()
# An `__init__` is compiled at this call: most classes are made once or twice in one start.
_WORTH_COMPILING = 4


class Field:
    """One field of a value: its default, or what makes one, and where it counts. `required`: it has neither."""

    def __init__(self, default: Any, default_factory: Any, compare: bool, repr: bool, kw_only: bool) -> None:
        self.name = ""
        self.default, self.default_factory = default, default_factory
        self.compare, self.repr, self.kw_only = compare, repr, kw_only

    @property
    def required(self) -> bool:
        """Whether a value must be given."""
        return self.default is _UNSET and self.default_factory is _UNSET

    def value(self) -> Any:
        """The value where none is given. Not for a required field."""
        return self.default if self.default_factory is _UNSET else self.default_factory()


def field(
    *,
    default: Any = _UNSET,
    default_factory: Any = _UNSET,
    compare: bool = True,
    repr: bool = True,
    kw_only: bool = False,
) -> Any:
    """A field with more than a plain default, as in `dataclasses`."""
    return Field(default, default_factory, compare, repr, kw_only)


def is_frozen(value: object) -> bool:
    """Whether it is such a value or a class of them."""
    return hasattr(value, "__frozen_fields__")


def fields(value: Any) -> tuple[Field, ...]:
    """The fields of such a value or of its class, in the order of their declaration."""
    found: tuple[Field, ...] = value.__frozen_fields__
    return found


def asdict(value: Any) -> dict[str, Any]:
    """The fields by name; values inside become dicts too, also in tuples, lists and mappings."""
    return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}


def _plain(value: Any) -> Any:
    if is_frozen(value):
        return asdict(value)
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value))
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def _refuse(self: object, name: str, *_: object) -> None:
    raise AttributeError(f"a {self.__class__.__name__} is not changed after it was made; its field: {name!r}")


def _compared(value: Any) -> tuple[object, ...]:
    return tuple(getattr(value, field.name) for field in fields(value) if field.compare)


def _equal(self: object, other: object) -> bool:
    return _compared(self) == _compared(other) if other.__class__ is self.__class__ else NotImplemented


def _hash(self: object) -> int:
    return hash(_compared(self))


def _text(self: Any) -> str:
    shown = (f"{field.name}={getattr(self, field.name)!r}" for field in fields(self) if field.repr)
    return f"{self.__class__.__qualname__}({', '.join(shown)})"


def _init(cls: Any) -> Callable[..., None]:
    """An `__init__` that sets the fields one by one, and puts a compiled one into its place when it is used often."""
    calls = 0

    def __init__(self: Any, *args: Any, **named: Any) -> None:
        nonlocal calls
        calls += 1
        given = {**dict(zip(cls.__match_args__, args, strict=False)), **named}
        whole = len(given) == len(args) + len(named)
        own = self.__dict__
        if calls < _WORTH_COMPILING and whole:
            for field in fields(cls):
                if field.name in given:
                    own[field.name] = given.pop(field.name)
                elif field.required:
                    whole = False
                else:
                    own[field.name] = field.value()
            if whole and not given:
                if hasattr(cls, "__post_init__"):
                    self.__post_init__()
                return
            own.clear()
        cls.__init__ = _compiled(cls)  # which says what is wrong with the arguments, in Python's own words
        cls.__init__(self, *args, **named)

    return __init__


def _compiled(cls: type) -> Callable[..., None]:
    """The `__init__` of a class: its fields as parameters, with their defaults, and those that only a keyword sets."""
    names: dict[str, Any] = {"_unset": _UNSET}
    head, body = ["self"], ["_own = self.__dict__"]
    for place, field in enumerate(sorted(fields(cls), key=lambda field: field.kw_only)):
        if field.kw_only and "*" not in head:
            head.append("*")
        default, made = f"_{place}", field.default_factory is not _UNSET
        names[default] = field.default_factory if made else field.default
        head.append(field.name if field.required else f"{field.name}={'_unset' if made else default}")
        value = f"{default}() if {field.name} is _unset else {field.name}" if made else field.name
        body.append(f"_own[{field.name!r}] = {value}")
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    exec(f"def __init__({', '.join(head)}):\n " + "\n ".join(body), names)
    init: Callable[..., None] = names["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    return init


class _Seen:
    """The fields as `dataclasses` keeps them, for whoever asks for them in that way."""

    def __get__(self, value: object, owner: Any) -> Any:
        import dataclasses

        made: dict[str, Any] = {"__annotations__": {}}
        for field in fields(owner):
            made["__annotations__"][field.name] = Any
            options: dict[str, Any] = {"compare": field.compare, "repr": field.repr, "kw_only": field.kw_only}
            if field.default_factory is not _UNSET:
                options["default_factory"] = field.default_factory
            elif field.default is not _UNSET:
                options["default"] = field.default
            made[field.name] = dataclasses.field(**options)
        alike: Any = dataclasses.dataclass(init=False, repr=False, eq=False)(type(owner.__name__, (), made))
        owner.__dataclass_fields__ = alike.__dataclass_fields__
        return owner.__dataclass_fields__


_SEEN = _Seen()
_METHODS = {"__setattr__": _refuse, "__delattr__": _refuse, "__eq__": _equal, "__hash__": _hash, "__repr__": _text}

if TYPE_CHECKING:
    from dataclasses import replace as replace

    from typing_extensions import dataclass_transform

    @dataclass_transform(frozen_default=True, field_specifiers=(field,))
    def frozen(cls: type[_T]) -> type[_T]:
        """Make the class an immutable dataclass, compared and hashed by its fields."""
else:

    def replace(value, /, **changes):
        """The same value with other fields. Raises TypeError for a field that it does not have."""
        return value.__class__(**{field.name: getattr(value, field.name) for field in fields(value)} | changes)

    def frozen(cls):
        """As declared above."""
        found = {}
        for base in reversed(cls.__mro__[1:]):
            found.update((field.name, field) for field in vars(base).get("__frozen_fields__", ()))
        for name in cls.__annotations__:
            default = vars(cls).get(name, _UNSET)
            made = default if isinstance(default, Field) else field(default=default)
            if made.default is not _UNSET:
                setattr(cls, name, made.default)
            elif made is default:
                delattr(cls, name)  # what makes the default is no value of the class
            made.name = name
            found[name] = made
        cls.__frozen_fields__ = tuple(found.values())
        cls.__match_args__ = tuple(field.name for field in found.values() if not field.kw_only)
        cls.__dataclass_fields__ = _SEEN
        for name, method in _METHODS.items():
            if name not in vars(cls):
                setattr(cls, name, method)
        if "__init__" not in vars(cls):
            cls.__init__ = _init(cls)
        return cls
