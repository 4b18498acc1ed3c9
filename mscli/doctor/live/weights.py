"""Checks of the area `weights`."""

from __future__ import annotations

from mscli.doctor.live.check import Check

CHECKS: tuple[Check, ...] = ()
