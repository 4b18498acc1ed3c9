"""Checks of our own instances: their state and why they ended, what they left behind, their folders."""

from __future__ import annotations

from mscli.doctor.checks.check import Check
from mscli.doctor.checks.instances.folders import folders, logs, records
from mscli.doctor.checks.instances.leftovers import files, orphans, unrecorded
from mscli.doctor.checks.instances.state import context, failed_starts, states

CHECKS = (
    Check("instances.records", records),
    Check("instances.state", states),
    Check("instances.failed_starts", failed_starts),
    Check("instances.orphans", orphans),
    Check("instances.unrecorded", unrecorded),
    Check("instances.leftovers", files),
    Check("instances.folders", folders),
    Check("instances.logs", logs),
    Check("instances.context", context),
)
