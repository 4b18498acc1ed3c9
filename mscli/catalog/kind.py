"""The kinds of values a catalogue file may hold, each with the check it passes and the words for what it wants."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mscli.catalog.document import Fault, KeyPath, Node, described
from mscli.catalog.size import parse_size

REQUIRED = object()
"""The default of a key that must be given."""


class Wrong(Exception):
    """A value that its kind refuses. `nearest`: the valid word that was probably meant."""

    def __init__(self, message: str, nearest: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.nearest = nearest


class Kind(Protocol):
    """What a key may hold."""

    def read(self, node: Node, key: KeyPath, faults: list[Fault]) -> Any:
        """The checked value of `node`; None when a fault was added instead."""


def nearest(word: str, valid: Iterable[str]) -> str | None:
    """The word of `valid` that `word` was probably meant to be, or None."""
    import difflib

    folded = {choice.casefold(): choice for choice in valid}
    close = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.5)
    return folded[close[0]] if close else None


def refuse(what: str, word: str, valid: Sequence[str]) -> Wrong:
    """The refusal of a word outside `valid`: the nearest one, or what there is."""
    close = nearest(word, valid)
    meant = f"did you mean '{close}'?" if close else f"there is {', '.join(valid)}" if valid else "there is none"
    return Wrong(f"{what}; {meant}", close)


class Leaf(ABC):
    """A kind made of one value without keys below it."""

    @abstractmethod
    def parse(self, node: Node) -> Any:
        """The value of `node`. Raises Wrong."""

    def read(self, node: Node, key: KeyPath, faults: list[Fault]) -> Any:
        """See Kind.read."""
        try:
            return self.parse(node)
        except Wrong as wrong:
            faults.append(Fault(node.line, key, wrong.message, wrong.nearest))
            return None


@dataclass(frozen=True)
class Text(Leaf):
    """Text. `pattern` must match all of it; `wants` says so in words; `blank` allows empty text."""

    pattern: str | None = None
    wants: str = "text"
    blank: bool = False

    def parse(self, node: Node) -> str:
        """See Leaf.parse."""
        if isinstance(node.value, (bool, int, float)):
            raise Wrong(f"expected {self.wants}, got {described(node)}; put it in quotes if you mean text")
        if node.value == "" and self.blank:
            return ""
        if not isinstance(node.value, str) or not node.value.strip():
            raise Wrong(f"expected {self.wants}, got {described(node) if node.value != '' else 'empty text'}")
        if self.pattern and not re.fullmatch(self.pattern, node.value):
            raise Wrong(f"expected {self.wants}, got {described(node)}")
        return node.value


@dataclass(frozen=True)
class Written(Leaf):
    """A scalar exactly as it was written: 8.0 stays '8.0', 1 stays '1'."""

    pattern: str
    wants: str

    def parse(self, node: Node) -> str:
        """See Leaf.parse."""
        scalar = node.value is not None and not isinstance(node.value, (tuple, Mapping))
        if not scalar or not re.fullmatch(self.pattern, node.text, re.DOTALL):
            raise Wrong(f"expected {self.wants}, got {described(node)}")
        return node.text


@dataclass(frozen=True)
class Word(Leaf):
    """One word of a closed list."""

    words: tuple[str, ...]
    what: str

    def parse(self, node: Node) -> str:
        """See Leaf.parse."""
        if not isinstance(node.value, str):
            raise Wrong(f"expected one of {', '.join(self.words)}, got {described(node)}")
        if node.value not in self.words:
            raise refuse(f"unknown {self.what} '{node.value}'", node.value, self.words)
        return node.value


@dataclass(frozen=True)
class Flag(Leaf):
    """True or false."""

    def parse(self, node: Node) -> bool:
        """See Leaf.parse."""
        if isinstance(node.value, bool):
            return node.value
        meant = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(str(node.value).casefold())
        raise Wrong(f"expected true or false, got {described(node)}{f'; write {meant}' if meant else ''}", meant)


@dataclass(frozen=True)
class Whole(Leaf):
    """A whole number from `least` to `most`, of `unit`s."""

    least: int = 0
    most: int | None = None
    unit: str = ""

    def parse(self, node: Node) -> int:
        """See Leaf.parse."""
        of = f" of {self.unit}" if self.unit else ""
        if isinstance(node.value, bool) or not isinstance(node.value, int):
            raise Wrong(f"expected a whole number{of}, got {described(node)}{_written_out(node)}")
        _within(node, node.value, self.least, self.most)
        return node.value


@dataclass(frozen=True)
class Number(Leaf):
    """A number from `least` to `most`."""

    least: float = 0
    most: float | None = None

    def parse(self, node: Node) -> float:
        """See Leaf.parse."""
        if isinstance(node.value, bool) or not isinstance(node.value, (int, float)):
            raise Wrong(f"expected a number, got {described(node)}")
        _within(node, node.value, self.least, self.most)
        return float(node.value)


@dataclass(frozen=True)
class Size(Leaf):
    """Bytes, as a whole number or with a unit (14.3 GB, 13.4 GiB); at least `least`."""

    least: int = 0

    def parse(self, node: Node) -> int:
        """See Leaf.parse."""
        if isinstance(node.value, float):
            raise Wrong(f"{node.text} has no unit; write {node.text} GB (powers of 1000) or {node.text} GiB (of 1024)")
        if isinstance(node.value, bool) or not isinstance(node.value, (int, str)):
            raise Wrong(f"expected bytes or a size such as 14.3 GB, got {described(node)}")
        try:
            size = node.value if isinstance(node.value, int) else parse_size(node.value)
        except ValueError as error:
            raise Wrong(str(error)) from error
        _within(node, size, self.least, None)
        return size


@dataclass(frozen=True)
class Plain(Leaf):
    """Any text, number, true or false."""

    def parse(self, node: Node) -> str | int | float | bool:
        """See Leaf.parse."""
        if isinstance(node.value, (str, int, float)):
            return node.value
        raise Wrong(f"expected text, a number, true or false, got {described(node)}")


@dataclass(frozen=True)
class Checked(Leaf):
    """Text with a rule of its own: `rule` returns what it is called wrong for, or None."""

    rule: Callable[[str], str | None]
    wants: str

    def parse(self, node: Node) -> str:
        """See Leaf.parse."""
        text = Text(wants=self.wants).parse(node)
        if complaint := self.rule(text):
            raise Wrong(complaint)
        return text


@dataclass(frozen=True)
class ListOf:
    """A list of one kind without repeats."""

    item: Kind
    least: int = 0

    def read(self, node: Node, key: KeyPath, faults: list[Fault]) -> tuple[Any, ...]:
        """See Kind.read."""
        if not isinstance(node.value, tuple):
            example = f"; write [{node.text}]" if node.text else ""
            faults.append(Fault(node.line, key, f"expected a list, got {described(node)}{example}"))
            return ()
        if len(node.value) < self.least:
            faults.append(Fault(node.line, key, "the list is empty; it needs at least one entry"))
        before = len(faults)
        items = [self.item.read(item, (*key, str(place)), faults) for place, item in enumerate(node.value)]
        if len(faults) == before and len(set(items)) < len(items):
            faults.append(Fault(node.line, key, "the same entry stands in the list twice"))
        return tuple(items)


@dataclass(frozen=True)
class MapOf:
    """A section whose keys the author chooses. `name` must match each key."""

    item: Kind
    name: Leaf
    least: int = 0

    def read(self, node: Node, key: KeyPath, faults: list[Fault]) -> dict[str, Any]:
        """See Kind.read."""
        entries = _entries(node, key, faults)
        if entries is not None and len(entries) < self.least:
            faults.append(Fault(node.line, key, "the section is empty; it needs at least one entry"))
        for name, entry in (entries or {}).items():
            self.name.read(Node(entry.line, name, name), (*key, name), faults)
        return {name: self.item.read(entry, (*key, name), faults) for name, entry in (entries or {}).items()}


@dataclass(frozen=True)
class Key:
    """One key of a section: what it holds, what it is for, its default ({}: the defaults of the section below it)."""

    name: str
    kind: Kind
    about: str
    default: object = REQUIRED


@dataclass(frozen=True)
class Table:
    """A section with a closed list of keys. `make` turns its values, by name, into the section's value."""

    keys: tuple[Key, ...]
    make: Callable[..., Any] = dict

    def read(self, node: Node, key: KeyPath, faults: list[Fault]) -> Any:
        """See Kind.read."""
        before = len(faults)
        entries = _entries(node, key, faults)
        if entries is None:
            return None
        known = [entry.name for entry in self.keys]
        for name, entry in entries.items():
            if name not in known:
                wrong = refuse("unknown key", name, known)
                faults.append(Fault(entry.line, (*key, name), wrong.message, wrong.nearest))
        values = {entry.name: self._value(entry, entries.get(entry.name), node, key, faults) for entry in self.keys}
        return self.make(**values) if len(faults) == before else None

    def _value(self, key: Key, node: Node | None, section: Node, above: KeyPath, faults: list[Fault]) -> Any:
        path = (*above, key.name)
        if node is None and key.default is REQUIRED:
            faults.append(Fault(section.line, path, f"missing; it is {key.about}"))
            return None
        if node is None:
            return key.kind.read(Node(section.line, {}), path, faults) if key.default == {} else key.default
        if node.value is None and key.default is None:
            return None
        if node.value is None:
            faults.append(Fault(node.line, path, f"has no value; it is {key.about}"))
            return None
        return key.kind.read(node, path, faults)


def _entries(node: Node, key: KeyPath, faults: list[Fault]) -> Mapping[str, Node] | None:
    if isinstance(node.value, Mapping):
        return node.value
    faults.append(Fault(node.line, key, f"expected a section of keys, got {described(node)}"))
    return None


def _within(node: Node, value: float, least: float, most: float | None) -> None:
    if value < least or (most is not None and value > most):
        bounds = f"the least is {least:,}" if most is None else f"it goes from {least:,} to {most:,}"
        raise Wrong(f"{node.text} is out of range; {bounds}")


def _written_out(node: Node) -> str:
    """Help for `32k`, which is 32,000 to some tools and 32,768 to others (vLLM takes both, by the letter's case)."""
    match = re.fullmatch(r"([1-9][0-9]{0,5}) ?([kK])", node.text)
    return f"; write the number out: {int(match[1]) * 1024} or {int(match[1]) * 1000}" if match else ""
