"""What a call refuses."""

from __future__ import annotations

from collections.abc import Callable

from mscli.errors import MscliError


def refused(what: Callable[[], object]) -> MscliError | None:
    """The error that a call ends with, or None. Whatever else it raises passes: a property would miss it else."""
    try:
        what()
    except MscliError as fault:
        return fault
    return None
