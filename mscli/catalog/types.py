"""The kinds of values a catalogue file may hold, each with the check it passes and the words for what it wants.

Functions, not classes: whoever reads a profile pays for defining them, and a frozen dataclass costs about half a
millisecond each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from mscli.catalog.document import Fault, KeyPath, Node, described
from mscli.frozen import frozen

Kind = Callable[[Node, KeyPath, list[Fault]], Any]
"""What a key may hold: the checked value of a node; None, with a fault added, for what it refuses."""

REQUIRED = object()
"""The default of a key that must be given."""


class Wrong(Exception):
    """A value that its kind refuses. `nearest`: the valid word that was probably meant."""

    def __init__(self, message: str, nearest: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.nearest = nearest


def nearest(word: str, valid: Iterable[str], likeness: float = 0.5) -> str | None:
    """The word of `valid` that `word` was probably meant to be, or None; `likeness` from 0 to 1 is asked for."""
    import difflib

    folded = {choice.casefold(): choice for choice in valid}
    close = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=likeness)
    return folded[close[0]] if close else None


def refuse(what: str, word: str, valid: Sequence[str]) -> Wrong:
    """The refusal of a word outside `valid`: the nearest one, or what there is."""
    close = nearest(word, valid)
    meant = f"did you mean '{close}'?" if close else f"there is {', '.join(valid)}" if valid else "there is none"
    return Wrong(f"{what}; {meant}", close)


def _leaf(parse: Callable[[Node], Any]) -> Kind:
    """The kind of a value without keys below it. `parse` raises Wrong."""

    def read(node: Node, key: KeyPath, faults: list[Fault]) -> Any:
        try:
            return parse(node)
        except Wrong as wrong:
            faults.append(Fault(node.line, key, wrong.message, wrong.nearest))
            return None

    return read


def text(pattern: str | None = None, wants: str = "text", blank: bool = False) -> Kind:
    """Text. `pattern` must match all of it; `wants` says so in words; `blank` allows empty text."""

    def parse(node: Node) -> str:
        value = _text(node, wants, blank)
        if pattern and not re.fullmatch(pattern, value):
            raise Wrong(f"expected {wants}, got {described(node)}")
        return value

    return _leaf(parse)


def checked(complaint: Callable[[str], str | None], wants: str) -> Kind:
    """Text with a rule of its own: `complaint` says what is wrong with it, or None."""

    def parse(node: Node) -> str:
        value = _text(node, wants, False)
        if wrong := complaint(value):
            raise Wrong(wrong)
        return value

    return _leaf(parse)


def written(pattern: str, wants: str) -> Kind:
    """A scalar exactly as it was written: 8.0 stays '8.0', 1 stays '1'."""

    def parse(node: Node) -> str:
        scalar = node.value is not None and not isinstance(node.value, (tuple, Mapping))
        if not scalar or not re.fullmatch(pattern, node.text, re.DOTALL):
            raise Wrong(f"expected {wants}, got {described(node)}")
        return node.text

    return _leaf(parse)


def word(words: tuple[str, ...], what: str) -> Kind:
    """One word of a closed list."""

    def parse(node: Node) -> str:
        if not isinstance(node.value, str):
            raise Wrong(f"expected one of {', '.join(words)}, got {described(node)}")
        if node.value not in words:
            raise refuse(f"unknown {what} '{node.value}'", node.value, words)
        return node.value

    return _leaf(parse)


def flag() -> Kind:
    """True or false."""

    def parse(node: Node) -> bool:
        if isinstance(node.value, bool):
            return node.value
        meant = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(str(node.value).casefold())
        raise Wrong(f"expected true or false, got {described(node)}{f'; write {meant}' if meant else ''}", meant)

    return _leaf(parse)


def whole(least: int = 0, most: int | None = None, unit: str = "") -> Kind:
    """A whole number from `least` to `most`, of `unit`."""

    def parse(node: Node) -> int:
        if isinstance(node.value, bool) or not isinstance(node.value, int):
            of = f" of {unit}" if unit else ""
            raise Wrong(f"expected a whole number{of}, got {described(node)}{_written_out(node)}")
        _within(node, node.value, least, most)
        return node.value

    return _leaf(parse)


def number(least: float = 0, most: float | None = None) -> Kind:
    """A number from `least` to `most`."""

    def parse(node: Node) -> float:
        if isinstance(node.value, bool) or not isinstance(node.value, (int, float)):
            raise Wrong(f"expected a number, got {described(node)}")
        _within(node, node.value, least, most)
        return float(node.value)

    return _leaf(parse)


def size(least: int = 0) -> Kind:
    """Bytes, as a whole number or with a unit (14.3 GB, 13.4 GiB); at least `least`."""

    def parse(node: Node) -> int:
        value = node.value
        if isinstance(value, float):
            raise Wrong(f"{node.text} has no unit; write {node.text} GB (powers of 1000) or {node.text} GiB (of 1024)")
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise Wrong(f"expected bytes or a size such as 14.3 GB, got {described(node)}")
        try:
            size_bytes = value if isinstance(value, int) else parse_size(value)
        except ValueError as error:
            raise Wrong(str(error)) from error
        _within(node, size_bytes, least, None)
        return size_bytes

    return _leaf(parse)


def plain() -> Kind:
    """Any text, number, true or false."""

    def parse(node: Node) -> str | int | float | bool:
        if isinstance(node.value, (str, int, float)):
            return node.value
        raise Wrong(f"expected text, a number, true or false, got {described(node)}")

    return _leaf(parse)


def list_of(item: Kind, least: int = 0) -> Kind:
    """A list of one kind without repeats."""

    def read(node: Node, key: KeyPath, faults: list[Fault]) -> tuple[Any, ...]:
        if not isinstance(node.value, tuple):
            example = f"; write [{node.text}]" if node.text else ""
            faults.append(Fault(node.line, key, f"expected a list, got {described(node)}{example}"))
            return ()
        if len(node.value) < least:
            faults.append(Fault(node.line, key, "the list is empty; it needs at least one entry"))
        before = len(faults)
        items = [item(entry, (*key, str(place)), faults) for place, entry in enumerate(node.value)]
        if len(faults) == before and len(set(items)) < len(items):
            faults.append(Fault(node.line, key, "the same entry is listed twice"))
        return tuple(items)

    return read


def map_of(item: Kind, name: Kind, least: int = 0) -> Kind:
    """A section whose keys the author chooses; `name` checks each of them."""

    def read(node: Node, key: KeyPath, faults: list[Fault]) -> dict[str, Any]:
        entries = _entries(node, key, faults)
        if entries is None:
            return {}
        if len(entries) < least:
            faults.append(Fault(node.line, key, "the section is empty; it needs at least one entry"))
        for chosen, entry in entries.items():
            name(Node(entry.line, chosen, chosen), (*key, chosen), faults)
        return {chosen: item(entry, (*key, chosen), faults) for chosen, entry in entries.items()}

    return read


@frozen
class Key:
    """One key of a section: what it holds, what it is for, its default ({}: the defaults of the section below it)."""

    name: str
    kind: Kind
    about: str
    default: object = REQUIRED


@frozen
class Table:
    """A section with a closed list of keys. `make` turns its values, by name, into the section's value."""

    keys: tuple[Key, ...]
    make: Callable[..., Any] = dict

    def __call__(self, node: Node, key: KeyPath, faults: list[Fault]) -> Any:
        """See Kind."""
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
            return key.kind(Node(section.line, {}), path, faults) if key.default == {} else key.default
        if node.value is None and key.default is None:
            return None
        if node.value is None:
            faults.append(Fault(node.line, path, f"has no value; it is {key.about}"))
            return None
        return key.kind(node, path, faults)


def _text(node: Node, wants: str, blank: bool) -> str:
    if node.value == "" and blank:
        return ""
    if isinstance(node.value, (bool, int, float)):
        raise Wrong(f"expected {wants}, got {described(node)}; put it in quotes if you mean text")
    if not isinstance(node.value, str) or not node.value.strip():
        raise Wrong(f"expected {wants}, got {described(node) if node.value != '' else 'empty text'}")
    return node.value


def _entries(node: Node, key: KeyPath, faults: list[Fault]) -> Mapping[str, Node] | None:
    if isinstance(node.value, Mapping):
        return node.value
    faults.append(Fault(node.line, key, f"expected a section of keys, got {described(node)}"))
    return None


def _within(node: Node, value: float, least: float, most: float | None) -> None:
    if value < least or (most is not None and value > most):
        bounds = f"the minimum is {least:,}" if most is None else f"the range is {least:,} to {most:,}"
        raise Wrong(f"{node.text} is out of range; {bounds}")


def _written_out(node: Node) -> str:
    """Help for `32k`, which is 32,000 to some tools and 32,768 to others (vLLM takes both, by the letter's case)."""
    match = re.fullmatch(r"([1-9][0-9]{0,5}) ?([kK])", node.text)
    return f"; write the number out: {int(match[1]) * 1024} or {int(match[1]) * 1000}" if match else ""


_UNITS: Mapping[str, int] = {
    "B": 1,
    **{"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12},
    **{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40},
}


def parse_size(text: str) -> int:
    """`text` in bytes, rounded to the nearest byte: powers of 1000 for kB, MB, GB, TB, of 1024 for KiB, MiB, GiB, TiB.

    Raises ValueError, worded for the user, for anything else: "14 G", "14gb" and "14.3" could mean either.
    """
    match = re.fullmatch(r"([0-9][0-9_]*)(?:\.([0-9]{1,12}))? ?([A-Za-z]+)", text.strip())
    if not match:
        raise ValueError(f"expected bytes or a size such as 14.3 GB or 13.4 GiB, got '{text}'")
    whole, fraction, unit = match[1].replace("_", ""), match[2] or "", match[3]
    if unit not in _UNITS:
        raise ValueError(f"unknown unit '{unit}'; {_meant(unit)}")
    scale: int = 10 ** len(fraction)
    return (2 * int(whole + fraction) * _UNITS[unit] + scale) // (2 * scale)


def _meant(unit: str) -> str:
    letter = unit[0].upper()
    decimal, binary = ("kB" if letter == "K" else f"{letter}B"), f"{letter}iB"
    if decimal in _UNITS and binary in _UNITS:
        return f"write {decimal} for {_UNITS[decimal]:,} bytes or {binary} for {_UNITS[binary]:,}"
    return f"the units are {', '.join(_UNITS)}"
