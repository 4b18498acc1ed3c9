"""The names of repositories in a log, made silent: one may be called `mmproj-proxy-oom` and says nothing by that."""

from __future__ import annotations

import re
from collections.abc import Iterator

# What hubs and registries put around a name: `huggingface.co/api/models/ORG/NAME`, `hf.co/v2/ORG/NAME/manifests/TAG`.
_IN_URL = re.compile(
    rb"(?:huggingface\.co|hf\.co|hf-mirror\.com|modelscope\.(?:cn|ai)|registry\.ollama\.ai|ollama\.com)"
    rb"/(?:(?:api|v2|models|datasets|library)/)*([\w.-]+)(?:/([\w.-]+))?"
)
_NO_NAME = frozenset(b"api v2 models datasets library resolve raw blob blobs tree manifests revision tags docs".split())
_LETTERS = bytes.maketrans(*(bytes((*range(65, 91), *range(97, 123))), b"X" * 26 + b"x" * 26))
_DISTINCT = 8  # letters of a name that is recognized elsewhere in the log, too


def without_names(text: bytes) -> bytes:
    """The text, each name of a repository that an address in it shows with its letters replaced by `x`: its length and
    its lines stay."""
    if b"/" not in text:
        return text
    spans: set[tuple[int, int]] = set()
    known: set[bytes] = set()
    for found in _IN_URL.finditer(text):
        for begin, end in _parts(found):
            spans.add((begin, end))
            known.add(text[begin:end])
    masked = bytearray(text)
    for begin, end in (*spans, *_elsewhere(text, known)):
        masked[begin:end] = text[begin:end].translate(_LETTERS)
    return bytes(masked)


def _parts(found: re.Match[bytes]) -> Iterator[tuple[int, int]]:
    for group in (1, 2):
        if found[group] is None or found[group] in _NO_NAME:
            return
        yield found.span(group)


def _elsewhere(text: bytes, names: set[bytes]) -> Iterator[tuple[int, int]]:
    """Where the same names stand outside of an address."""
    if wanted := [re.escape(name) for name in names if len(name) >= _DISTINCT and b"-" in name]:
        yield from (found.span() for found in re.finditer(b"|".join(sorted(wanted, reverse=True)), text))
