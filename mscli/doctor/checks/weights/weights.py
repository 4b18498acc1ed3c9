"""Checks of the area `weights`: the cache can be written, has room, and what lies in it can serve."""

from __future__ import annotations

from mscli.doctor.checks.check import Check
from mscli.doctor.checks.weights.files import files, offline, partial
from mscli.doctor.checks.weights.room import folder, scratch, space
from mscli.doctor.checks.weights.settings import settings, token_kept

CHECKS: tuple[Check, ...] = (
    Check("weights.folder", folder),
    Check("weights.space", space),
    Check("weights.scratch", scratch),
    Check("weights.files", files),
    Check("weights.partial", partial),
    Check("weights.offline", offline),
    Check("weights.settings", settings),
    Check("weights.token", token_kept),
)
