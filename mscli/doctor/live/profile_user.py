"""This user's own profiles, models and pins: a broken one hides the shipped one of its name."""

from __future__ import annotations

from collections.abc import Iterator

from mscli.doctor.live.check import Seen, fail, ok, skipped, warn
from mscli.doctor.live.scene import Scene
from mscli.errors import MscliError
from mscli.lifecycle.pinned import load_pins


def user_files(scene: Scene) -> Iterator[Seen]:
    """Every file of the user's is valid. Nothing else is read where there are none."""
    folder = scene.places.profiles
    try:
        load_pins(scene.places)
        own = sorted(path for path in (*folder.glob("*.yaml"), *folder.glob("models/*.yaml")))
        broken = scene.catalog.broken if own else ()
    except MscliError as fault:
        yield fail(None, fault.message, fault.hint)
        return
    except OSError as fault:
        yield fail("permissions", f"{folder} cannot be read: {fault.strerror}", "Give it to this user.")
        return
    for error in broken:
        name = str(error.details.get("profile") or error.details.get("model") or "")
        path = folder / ("" if "profile" in error.details else "models") / f"{name}.yaml"
        yield warn(None, error.message, error.hint, command=f"mscli profiles validate {path}")
    if not own:
        yield skipped(f"no profiles of your own in {folder}")
    elif not broken:
        yield ok(f"{len(own)} files of your own in {folder} are valid")
