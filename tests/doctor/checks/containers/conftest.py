"""A machine with GPUs below the real NVML bindings, and only those container programs that a test puts there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.containers.docker_program import Programs
from support.machines.described_machines import inventory_of

from mscli.doctor.checks.check import CheckContext, Finding
from mscli.doctor.checks.run import checks, examine
from mscli.lifecycle.decision import chosen
from mscli.paths import places

# What the stand-ins' scripts run; nothing else is on PATH, whatever this machine has.
WAITED_S = 60.0
TOOLS = ("sh", "cat", "sleep", "echo")


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    """A folder of programs with nothing but what scripts need, and an empty /."""
    made = Programs(tmp_path / "bin", tmp_path / "root")
    made.bin.mkdir()
    made.root.mkdir()
    for name in TOOLS:
        if found := shutil.which(name):
            (made.bin / name).symlink_to(found)
    made.file("/proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.124.06  Wed 2025\n")
    return made


Visit = Callable[..., dict[str, list[Finding]]]


@pytest.fixture
def visit(programs: Programs, machine: Callable[..., dict[str, str]], tmp_path: Path) -> Visit:
    """Runs the checks of containers on a described machine: findings by the check's name."""

    def run(
        on: str = "rtx4090-x2", profile: str | None = None, asked: bool = False, **env: str
    ) -> dict[str, list[Finding]]:
        own = {"PATH": str(programs.bin), "HOME": str(tmp_path), **env}
        where = places({"MSCLI_HOME": str(tmp_path / "home")})
        wanted = chosen(profile, None, where, engine="vllm-docker") if profile else None
        areas = frozenset({"containers"}) if asked else frozenset()
        ctx = CheckContext(where, env=own, root=programs.root, chosen=wanted, asked=areas)
        ctx.once("inventory", lambda: inventory_of(on, machine), of=CheckContext.__module__)
        found: dict[str, list[Finding]] = {}
        patient = [replace(check, deadline_s=WAITED_S) for check in checks(("containers",))]
        for finding in examine(ctx, patient):
            assert finding.status != "crashed", finding.seen
            found.setdefault(finding.id.removeprefix("containers."), []).append(finding)
        return found

    return run
