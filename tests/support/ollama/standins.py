"""The stand-in for Ollama as tests see it: the scene that it plays, and a server that runs."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STANDIN = Path(__file__).parent / "standin"
SMALL = "mistral-small3.1:24b-instruct-2503-q4_K_M"
MAGISTRAL = "magistral:24b-small-2506-q4_K_M"


@dataclass
class Scene:
    """The file that says what the stand-ins of one test play."""

    path: Path
    told: dict[str, Any]

    def play(self, **changes: Any) -> None:
        """Change what is played from the next request on."""
        self.told.update(changes)
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps(self.told))
        fresh.replace(self.path)


@dataclass
class Server:
    """A stand-in that runs."""

    process: subprocess.Popen[str]
    port: int
    models: Path
    lines: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[str]:
        """What clients asked for so far, as `METHOD /path`."""
        seen = (line.split("|")[-1].split() for line in self.lines if line.startswith("[GIN]"))
        return [f"{method} {path.strip(chr(34))}" for method, path in seen]

    def served(self) -> list[tuple[str, int, int]]:
        """Every piece that came from the registry: blob, offset, bytes."""
        path = self.models / "served"
        rows = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [(blob, int(start), int(size)) for blob, start, size in rows]
