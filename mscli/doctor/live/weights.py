"""Checks of the area `weights`: the cache can be written, has room, and what lies in it can serve."""

from __future__ import annotations

from mscli.doctor.live.check import Check
from mscli.doctor.live.weights_files import files, offline, partial
from mscli.doctor.live.weights_room import folder, scratch, space
from mscli.doctor.live.weights_settings import settings, token_kept

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
