"""How the GPUs are, for all checks that need it: their health, looked at once, and which of them are lost."""

from __future__ import annotations

from mscli.doctor.checks.context import CheckContext
from mscli.inventory.health import Health, read_health
from mscli.inventory.inventory import Gpu

LOST = frozenset({"GPU_IS_LOST", "RESET_REQUIRED"})


def health(ctx: CheckContext) -> tuple[Health, ...]:
    """Of the GPUs that NVML shows, read after the inventory and not beside it; none where NVML does not answer."""
    indices = [gpu.index for gpu in ctx.inventory.gpus]
    return ctx.once("health", lambda: read_health(indices) if indices else ())


def lost(ctx: CheckContext) -> tuple[Gpu, ...]:
    """The GPUs that no longer answer."""
    return tuple(gpu for gpu in ctx.inventory.gpus if LOST & {problem.code for problem in gpu.problems})
