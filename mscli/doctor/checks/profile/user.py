"""This user's own profiles, models and pins: a broken one hides the shipped one of its name."""

from __future__ import annotations

from collections.abc import Iterator

from mscli.doctor.checks.check import Seen, fail, ok, skipped, warn
from mscli.doctor.checks.context import CheckContext
from mscli.errors import MscliError
from mscli.lifecycle.pinned import load_pins


def user_files(ctx: CheckContext) -> Iterator[Seen]:
    """Every file of the user's is valid. Nothing else is read where there are none."""
    folder = ctx.places.profiles
    try:
        load_pins(ctx.places)
        own = sorted(path for path in (*folder.glob("*.yaml"), *folder.glob("models/*.yaml")))
        broken = ctx.catalog.broken if own else ()
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
