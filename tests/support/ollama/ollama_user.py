"""The user of these tests, and what the stand-in for Ollama plays for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mscli.doctor.checks.check import Finding

SMALL = "mistral-small3.1:24b-instruct-2503-q4_K_M"
Visit = Callable[..., dict[str, list[Finding]]]


@dataclass(frozen=True)
class User:
    """`bin`: the folder that is first on PATH. `env`: the environment of the user's shell."""

    bin: Path
    env: dict[str, str]
    home: Path

    def program(self, name: str, script: str) -> Path:
        """An executable of that name, first on PATH."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def service(self, **properties: str) -> None:
        """What systemctl tells of the service."""
        told = {"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled", "User": "ollama"}
        (self.bin / "shown").write_text("".join(f"{key}={value}\n" for key, value in {**told, **properties}.items()))
        self.program("systemctl", f'exec cat "{self.bin}/shown"')

    def journal(self, *lines: str, err: str = "") -> None:
        """What journalctl tells of the service."""
        (self.bin / "journal").write_text("\n".join(lines) + "\n")
        self.program("journalctl", f"echo '{err}' >&2\nexec cat \"{self.bin}/journal\"")


def play(path: Path, **told: object) -> None:
    """What the stand-in plays from now on."""
    registry = {SMALL: {"layers": [1000], "capabilities": ["completion"]}}
    path.write_text(json.dumps({"registry": registry, **told}))
