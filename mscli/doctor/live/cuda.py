"""Checks of the area `cuda`."""

from __future__ import annotations

from mscli.doctor.live.check import Check

CHECKS: tuple[Check, ...] = ()
