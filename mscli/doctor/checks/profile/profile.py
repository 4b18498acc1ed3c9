"""Checks of profiles: those of this user at every visit, and all that the one asked about needs."""

from __future__ import annotations

from mscli.doctor.checks.check import Check
from mscli.doctor.checks.profile.options import files_format, sampling, tools, vision
from mscli.doctor.checks.profile.plan import context, engine_found, fits
from mscli.doctor.checks.profile.user import user_files

CHECKS = (
    Check("profile.file", user_files),
    # These look at an engine, which may take its time to tell its version; nothing of it happens without a profile.
    Check("profile.plan", fits, deadline_s=6.0),
    Check("profile.context", context, deadline_s=6.0),
    Check("profile.engine", engine_found, deadline_s=6.0),
    Check("profile.format", files_format),
    Check("profile.sampling", sampling),
    Check("profile.vision", vision),
    Check("profile.tools", tools),
)
