"""What comes with mscli, as a user would write it into files of his own."""

from __future__ import annotations

from mscli.catalog.files import complete
from mscli.catalog.load import load_one
from mscli.paths import shipped_profiles


def profile_text(name: str) -> str:
    """A shipped profile as a file of its own."""
    return complete(load_one(name, shipped_profiles(), None)[0])


def model_text(name: str) -> str:
    """A shipped model's file without the ways to run it, whose names are taken."""
    return (shipped_profiles() / "models" / f"{name}.yaml").read_text().partition("\nways:")[0] + "\n"
