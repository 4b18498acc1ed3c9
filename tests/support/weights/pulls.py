"""Pulls for the tests: variants of one repository, a listener that remembers, and a pull in a process of its own.

Run as a program it pulls one variant with the environment it is given: `python pulls.py PATTERN...`. It prints a line
per look at the progress and the result last, and ends with 1 after an error, whose cause it prints.
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mscli.catalog.load import load_one
from mscli.catalog.model import Model, Source, Variant
from mscli.errors import MscliError
from mscli.paths import shipped_profiles
from mscli.weights.ensure import ensure
from mscli.weights.fault import Timeouts
from mscli.weights.progress import Note, Progress, WeightFiles

if TYPE_CHECKING:
    import pytest

OF_THE_USER = ("HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_XET_CACHE", "SSL_CERT_FILE")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
REPOSITORY = "makers/small-24b"
GGUF = "small-q4_k_m.gguf"
QUICK = Timeouts(connect_s=5.0, stall_s=0.5, retry_s=4.0)


@dataclass
class Heard:
    """A listener that remembers."""

    looks: list[Progress] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    def progress(self, progress: Progress) -> None:
        self.looks.append(progress)

    def note(self, note: Note) -> None:
        self.notes.append(note)

    @property
    def codes(self) -> list[str]:
        return [note.code for note in self.notes]


def content(size: int, seed: int = 1) -> bytes:
    """Bytes that do not repeat."""
    return random.Random(seed).randbytes(size)


def variant(*files: str, layout: str = "gguf", revision: str = "main", projector: str | None = None) -> Variant:
    """A variant that asks the hub for `files`."""
    source = Source("hub", REPOSITORY, revision, files or (GGUF,), projector)
    return Variant("q4_k_m", layout, "q4_k_m", 1, 0, 0, 1, "", source)


def model() -> Model:
    """Some model of the catalogue."""
    return load_one("rehearsal", shipped_profiles(), None)[1]


def pull(*files: str, listener: Heard | None = None, timeouts: Timeouts = QUICK, **more: str) -> WeightFiles:
    """Pulls here and now."""
    return ensure(model(), variant(*files, **more), listener or Heard(), timeouts=timeouts)


def point_at(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `url` this process's hub, in an environment without this machine's settings."""
    for name in (*OF_THE_USER, *PROXIES, *(name.upper() for name in PROXIES)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")


def whole(path: str | Path, expected: bytes) -> bool:
    """The file is there, byte for byte."""
    return Path(path).read_bytes() == expected


class Lines:
    """A listener that prints."""

    def progress(self, progress: Progress) -> None:
        print(progress.stage, progress.done_bytes, progress.total_bytes, flush=True)

    def note(self, note: Note) -> None:
        print("note", note.code, flush=True)


if __name__ == "__main__":
    try:
        quick = Timeouts(connect_s=5.0, stall_s=1.0, retry_s=10.0)  # a busy machine is no stall
        print("whole", ensure(model(), variant(*sys.argv[1:]), Lines(), timeouts=quick).model)
    except MscliError as error:
        sys.exit(f"{error.details.get('cause')}: {error.message} {error.hint}")
