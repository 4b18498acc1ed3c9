"""The GPUs' health, looked at once for all checks that need it, after the inventory and not beside it."""

from __future__ import annotations

from mscli.doctor.live.scene import Scene
from mscli.inventory.health import Health, read_health


def health(scene: Scene) -> tuple[Health, ...]:
    """Of the GPUs that NVML shows; none where it does not answer."""
    indices = [gpu.index for gpu in scene.inventory.gpus]
    return scene.once("health", lambda: read_health(indices) if indices else ())
