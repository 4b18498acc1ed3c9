"""A visit of the doctor as a user sees it, and a profile whose weights lie on a hub on loopback."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub import Hub

from mscli.paths import shipped_profiles

REPOSITORY = "makers/tiny"
GGUF, PROJECTOR = "rehearsal-q8_0.gguf", "mmproj-rehearsal-f16.gguf"

Found = dict[str, Any]


@dataclass(frozen=True)
class Visit:
    """What one visit of the doctor found."""

    code: int
    findings: Sequence[Found]
    text: str
    seconds: float

    def of(self, check: str) -> list[Found]:
        return [found for found in self.findings if found["id"] == check]

    def bad(self, check: str) -> Found:
        """The one finding of a check that is a warning or a failure."""
        found = [each for each in self.of(check) if each["status"] not in ("ok", "skipped")]
        assert len(found) == 1, f"{check}: {self.of(check)}"
        return found[0]

    def good(self, check: str) -> Found:
        """The one finding of a check with which all is well."""
        found = self.of(check)
        assert [each["status"] for each in found] == ["ok"], f"{check}: {found}"
        return found[0]


Doctor = Callable[..., Visit]


def own_profile(home: Path, name: str = "tiny", **lines: str) -> Path:
    """A user's profile like the rehearsal, whose model comes from the hub; `lines` are added to it."""
    profiles = home / "config" / "profiles"
    (profiles / "models").mkdir(parents=True, exist_ok=True)
    text = (shipped_profiles() / "rehearsal.yaml").read_text().replace("model: rehearsal", "model: tiny")
    path = profiles / f"{name}.yaml"
    path.write_text(text + "".join(f"{key}: {value}\n" for key, value in lines.items()))
    model = (shipped_profiles() / "models" / "rehearsal.yaml").read_text()
    source = f"source:\n      kind: hub\n      repository: {REPOSITORY}\n      revision: main\n"
    model = model.replace("source:\n      kind: package\n", source).replace("rehearsal/", "")
    (profiles / "models" / "tiny.yaml").write_text(model)
    return path


def at(hub: Hub, **more: str) -> dict[str, str]:
    """The environment that makes this hub the one in force."""
    return {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_TELEMETRY": "1", **more}
