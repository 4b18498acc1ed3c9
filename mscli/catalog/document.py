"""A YAML file as values that know their line, and the faults found in it.

The scalars follow YAML 1.2 (`yes`, `on` and `010` are text, never True or 8); `32_768` is a number. Built from the
parser's events instead of PyYAML's own objects: that keeps the line of every key, sees a key given twice, and cannot be
driven into the C composer's unbounded recursion (60,000 opening brackets end the interpreter there).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mscli.errors import Code, MscliError
from mscli.frozen import frozen, replace

if TYPE_CHECKING:
    import yaml

KeyPath = tuple[str, ...]
Event = Any
"""A yaml.Event: yaml itself is imported only where a file is read."""

Scalar = bool | int | float | str | None

# Catalogue files have a few kB and four levels; more is a wrong file, or a hostile one.
_LARGEST_BYTES = 1 << 20
_DEEPEST = 16
_TOO_DEEP = f"nested more than {_DEEPEST} levels deep"

_TAGS = (None, "!", *(f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map")))
_CONSTANTS: Mapping[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


@frozen
class Node:
    """One value and the line (from 1) where its key stands. `text` is a scalar as it was written."""

    line: int
    value: Scalar | tuple[Node, ...] | Mapping[str, Node]
    text: str = ""


@frozen
class Fault:
    """One thing wrong with a file. `line` 0: the file as a whole. `nearest`: the valid word that was probably meant."""

    line: int
    key: KeyPath
    message: str
    nearest: str | None = None


@frozen
class Document:
    """A parsed file: a mapping at the top."""

    path: Path
    root: Node

    def line(self, key: KeyPath) -> int:
        """The line of `key`, or of the nearest section above it that the file has."""
        node = self.root
        for name in key:
            if isinstance(node.value, Mapping) and name in node.value:
                node = node.value[name]
            elif isinstance(node.value, tuple) and name.isdigit() and int(name) < len(node.value):
                node = node.value[int(name)]
            else:
                break
        return node.line

    def located(self, faults: Iterable[Fault]) -> list[Fault]:
        """`faults` with the lines of their keys."""
        return [replace(fault, line=self.line(fault.key)) for fault in faults]


def dotted(key: KeyPath) -> str:
    """A key as it is shown: ('variants', 'q8_0', 'source', 'files', '0') is `variants.q8_0.source.files[0]`."""
    parts = (f"[{name}]" if name.isdigit() and place else f".{name}" for place, name in enumerate(key))
    return "".join(parts).removeprefix(".")


def invalid(path: Path, faults: Sequence[Fault], hint: str | None = None) -> MscliError:
    """The PROFILE_INVALID error for the first of `faults` by line; `details["faults"]` has them all."""
    ordered = sorted(faults, key=lambda fault: fault.line)
    first, more = ordered[0], len(ordered) - 1
    suffix = f" (and {more} more fault{'s' if more > 1 else ''} in this file)" if more else ""
    details = {"file": str(path), **_plain(first), "faults": [_plain(fault) for fault in ordered]}
    # `validate FILE` checks a profile; without a file it checks all, models too.
    check = "mscli profiles validate" if path.parent.name == "models" else f"mscli profiles validate {path}"
    hint = hint or f"correct the file, then check it: {check}"
    return MscliError(Code.PROFILE_INVALID, _sentence(path, first) + suffix, hint, details)


def _plain(fault: Fault) -> dict[str, object]:
    key = dotted(fault.key) or None
    return {"line": fault.line or None, "key": key, "nearest": fault.nearest, "message": fault.message}


def _sentence(path: Path, fault: Fault) -> str:
    place = f"{path}:{fault.line}" if fault.line else str(path)
    key = f" key '{dotted(fault.key)}':" if fault.key else ""
    return f"{place}:{_shown(key)} {_shown(' '.join(fault.message.split()))}"


def _shown(text: str) -> str:
    """`text` on one line, with nothing in it that a terminal would obey."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def read_document(path: Path) -> Document:
    """Read one YAML file whose top is a mapping.

    Raises MscliError(PROFILE_INVALID) with file and line: unreadable, a folder, not UTF-8, not YAML, empty,
    not a mapping, a key given twice.
    """
    return document_in(path, text_of(path))


def document_in(path: Path, text: str) -> Document:
    """The document in the text of the file `path`. Raises as `read_document` does for what is wrong with the text."""
    faults: list[Fault] = []
    root = _root(path, text, faults)
    if root.value is None and not faults:
        faults.append(Fault(1, (), "the file is empty"))
    elif not isinstance(root.value, Mapping) and not faults:
        faults.append(Fault(root.line, (), f"expected lines of `key: value` at the top, got {described(root)}"))
    if faults:
        raise invalid(path, faults)
    return Document(path, root)


def text_of(path: Path) -> str:
    """The text of a YAML file. Raises as `read_document` does for what cannot be read."""
    try:
        # Without O_NONBLOCK a pipe that nobody writes to would hold the opening itself for ever.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode) and not path.is_dir():
                raise invalid(path, [Fault(0, (), "is a pipe or a device, not a file")])
            raw = file.read(_LARGEST_BYTES + 1)
    except IsADirectoryError:
        raise invalid(path, [Fault(0, (), "is a folder, not a YAML file")]) from None
    except FileNotFoundError:
        raise invalid(path, [Fault(0, (), "there is no such file")], "Check its path.") from None
    except OSError as error:
        raise invalid(path, [Fault(0, (), f"cannot be read: {error.strerror}")]) from error
    if len(raw) > _LARGEST_BYTES:
        raise invalid(path, [Fault(0, (), "is larger than 1 MiB, so it is not a profile")])
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        wrong = Fault(line, (), f"not UTF-8 text: byte 0x{raw[error.start]:02x}; save the file as UTF-8")
        raise invalid(path, [wrong]) from error


def _root(path: Path, text: str, faults: list[Fault]) -> Node:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _Builder(yaml.parse(text, Loader=loader), faults).root()
    except yaml.YAMLError as error:
        raise invalid(path, [_syntax_fault(error, text)]) from error


def _syntax_fault(error: yaml.YAMLError, text: str) -> Fault:
    """A parser's complaint in our words."""
    line = _syntax_line(error, text)
    source = text.split("\n")[line - 1]
    problem = str(getattr(error, "problem", None) or getattr(error, "reason", error))
    if "maximum nesting depth" in problem:  # PyYAML from 6.0.4 on has a limit of its own, and reads ahead
        return Fault(line, (), _TOO_DEEP)
    if "\t" in source[: len(source) - len(source.lstrip())]:
        problem = "a tab in the indentation; YAML takes spaces only"
    elif "mapping values are not allowed" in problem:
        problem = "a second colon in one line; put the value in quotes, or fix the indentation"
    elif "could not find expected ':'" in problem:
        problem = "expected `key: value`, found no colon"
    elif context := getattr(error, "context", None):
        problem = f"{problem} {context}"
    return Fault(line, (), f"not valid YAML: {problem}")


def _syntax_line(error: yaml.YAMLError, text: str) -> int:
    """Where the parser stopped; where its trouble began, when that is the end of the file. Some tell only an offset."""
    lines = text.rstrip().count("\n") + 1
    marks = [getattr(error, name, None) for name in ("problem_mark", "context_mark")]
    told: list[int] = [mark.line + 1 for mark in marks if mark]
    if told:
        return next((line for line in told if line <= lines), lines)
    return text.count("\n", 0, getattr(error, "position", 0)) + 1


def described(node: Node) -> str:
    """A node's value in words, for 'expected ..., got ...'."""
    value = node.value
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return node.text.lower()
    if isinstance(value, (int, float)):
        return f"the number {node.text}"
    if isinstance(value, str):
        return f"the text '{value if len(value) <= 60 else value[:57] + '...'}'"
    return "a list" if isinstance(value, tuple) else "a section of keys"


def scalar_node(text: str) -> Node:
    """A value that stands alone, as it would in a file: `8000` is a number."""
    return Node(1, _scalar(text), text)


class _TooDeep(Exception):
    pass


class _Builder:
    """Nodes from the parser's events. Duplicate keys, unknown aliases and the like go to `faults`."""

    def __init__(self, events: Iterator[Event], faults: list[Fault]) -> None:
        self._events = events
        self._faults = faults
        self._anchors: dict[str, Node] = {}

    def root(self) -> Node:
        """The first document's node (value None when the file holds none)."""
        next(self._events)
        if not _is(event := next(self._events), "DocumentStart"):
            return Node(1, None)
        try:
            node = self._node(next(self._events), ())
        except _TooDeep:
            return Node(1, None)
        next(self._events)
        if _is(event := next(self._events), "DocumentStart"):
            self._fault(event, (), "a second document starts here; a file may contain only one")
        return node

    def _fault(self, event: Event, key: KeyPath, message: str) -> None:
        self._faults.append(Fault(event.start_mark.line + 1, key, message))

    def _node(self, event: Event, key: KeyPath, line: int = 0) -> Node:
        """The node that begins with `event`. `line`: where its key stands, where it has one."""
        line = line or event.start_mark.line + 1
        if len(key) > _DEEPEST:
            self._fault(event, (), _TOO_DEEP)
            raise _TooDeep
        if _is(event, "Alias"):
            return self._alias(event, key, line)
        if event.tag not in _TAGS:
            self._fault(event, key, f"the tag {event.tag} means nothing here; remove it")
        if _is(event, "Scalar"):
            node = Node(line, _scalar(event.value) if event.implicit[0] else event.value, event.value)
        elif _is(event, "SequenceStart"):
            node = Node(line, tuple(self._items(key)))
        else:
            node = Node(line, self._entries(key))
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, event: Event, key: KeyPath, line: int) -> Node:
        if event.anchor in self._anchors:
            return replace(self._anchors[event.anchor], line=line)
        self._fault(event, key, f"*{event.anchor} has no finished &{event.anchor} before it")
        return Node(line, None)

    def _items(self, key: KeyPath) -> Iterator[Node]:
        place = 0
        while not _is(event := next(self._events), "SequenceEnd"):
            yield self._node(event, (*key, str(place)))
            place += 1

    def _entries(self, key: KeyPath) -> dict[str, Node]:
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        while not _is(event := next(self._events), "MappingEnd"):
            name = self._name(event, key)
            node = self._node(next(self._events), (*key, name), event.start_mark.line + 1)
            if name == "<<":
                self._merge(merged, node, key)
            elif name in own:
                message = f"given twice; first on line {own[name].line}"
                self._fault(event, (*key, name), message)
            else:
                own[name] = node
        return {**merged, **own}

    def _name(self, event: Event, key: KeyPath) -> str:
        if _is(event, "Scalar"):
            return str(event.value)
        self._fault(event, key, "a key must be a single word")
        self._node(event, (*key, "?"))
        return "?"

    def _merge(self, merged: dict[str, Node], node: Node, key: KeyPath) -> None:
        """YAML's `<<`: entries of another mapping, which the section's own entries override; the first named wins."""
        sources = node.value if isinstance(node.value, tuple) else (node,)
        for source in sources:
            if isinstance(source.value, Mapping):
                merged.update({name: entry for name, entry in source.value.items() if name not in merged})
            else:
                self._faults.append(
                    Fault(node.line, (*key, "<<"), f"expected a section to merge, got {described(source)}")
                )


def _is(event: Event, kind: str) -> bool:
    return type(event).__name__ == kind + "Event"


def _scalar(text: str) -> Scalar:
    """A plain scalar's value under YAML 1.2's core schema, with underscores allowed in numbers and no octal."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if re.fullmatch(r"[-+]?(0|[1-9][0-9_]{0,24})", text):
        return int(text.replace("_", ""))
    decimal = re.fullmatch(r"[-+]?[0-9][0-9_]{0,24}(\.[0-9]{1,24})?([eE][-+]?[0-9]{1,2})?", text)
    if decimal and not (text.lstrip("+-").startswith("0") and text.lstrip("+-").isdigit()):
        return float(text.replace("_", ""))
    return text
