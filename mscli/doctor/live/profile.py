"""Checks of profiles: those of this user at every visit, and all that the one asked about needs."""

from __future__ import annotations

from mscli.doctor.live.check import Check
from mscli.doctor.live.profile_options import files_format, sampling, tools, vision
from mscli.doctor.live.profile_plan import context, engine_found, fits
from mscli.doctor.live.profile_user import user_files

CHECKS = (
    Check("profile.file", user_files),
    Check("profile.plan", fits),
    Check("profile.context", context),
    Check("profile.engine", engine_found),
    Check("profile.format", files_format),
    Check("profile.sampling", sampling),
    Check("profile.vision", vision),
    Check("profile.tools", tools),
)
