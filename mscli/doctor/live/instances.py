"""Checks of our own instances: their state and why they ended, what they left behind, their folders."""

from __future__ import annotations

from mscli.doctor.live.check import Check
from mscli.doctor.live.instance_folders import folders, logs, records
from mscli.doctor.live.instance_leftovers import files, orphans, unrecorded
from mscli.doctor.live.instance_state import context, failed_starts, states

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
