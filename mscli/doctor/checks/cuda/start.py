"""CUDA started once in a child process, and how it ended."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mscli.doctor.checks.context import CheckContext
from mscli.doctor.checks.program import run

# A healthy GPU needs some tenths of a second; without persistence mode, the driver wakes each one, for a second or
# more. Only a machine that is not well makes anybody wait as long as this.
WAITED_S = 8.0
# A context takes 300 to 600 MiB for as long as it lives.
_ROOM = 2**30


@dataclass(frozen=True)
class Start:
    """`path`: the libcuda that was loaded; `missing`: why none was. `call`, `code`, `name`: the first call that failed
    before any device (code 0: none). `version`: as CUDA counts, 12080 for 12.8. `devices`: what each device said, as
    cuda_probe tells it. `hung`: the call that had not come back. `status`: how the process ended, None: it was killed.
    """

    path: str | None
    missing: str | None
    call: str
    code: int
    name: str
    seconds: float
    version: int | None
    count: int
    devices: tuple[dict[str, Any], ...]
    hung: str | None
    status: int | None


def cuda_start(ctx: CheckContext) -> Start:
    """The one start of this visit. Blocks at most WAITED_S."""
    return ctx.once("cuda_start", lambda: start(ctx, WAITED_S))


def start(ctx: CheckContext, timeout_s: float) -> Start:
    """Start CUDA and see how it ends. Blocks at most `timeout_s`."""
    # -I and -S: neither the user's Python settings nor installed packages take part, and it starts faster.
    program = Path(__file__).with_name("probe.py")
    order = {"CUDA_DEVICE_ORDER": ctx.env.get("CUDA_DEVICE_ORDER", "PCI_BUS_ID")}  # the order of the inventory
    argv = (sys.executable, "-I", "-S", str(program), *map(str, spared(ctx)))
    ran = run(ctx, *argv, timeout_s=timeout_s, env=order)
    steps = list(_steps(ran.out)) if ran else []
    by_name = {step["step"]: step for step in steps}
    load, found = by_name.get("load", {}), by_name.get("found", {})
    failed = next((step for step in steps if step.get("code") and step["step"] != "device"), {})
    devices = tuple(step for step in steps if step["step"] == "device")
    begun = [step["call"] for step in steps if step["step"] == "begin" and step["call"] not in by_name]
    unfinished = begun[0] if begun else "the first use of a device" if found and "end" not in by_name else None
    return Start(
        path=load.get("path"),
        missing=load.get("error"),
        call=failed.get("step", ""),
        code=failed.get("code", 0),
        name=failed.get("name", ""),
        seconds=sum(step.get("seconds", 0.0) for step in steps),
        version=found.get("version"),
        count=found.get("count", 0),
        devices=devices,
        hung=unfinished,
        status=ran.status if ran else None,
    )


def spared(ctx: CheckContext) -> list[int]:
    """The CUDA devices that are too full to be tried without harm to whoever fills them."""
    devices = ctx.inventory.devices
    return [at for at, device in enumerate(devices) if device.free_bytes is not None and device.free_bytes < _ROOM]


def _steps(text: str) -> Iterator[dict[str, Any]]:
    """The lines that are whole: the last one of a process that was killed may not be."""
    for line in text.splitlines():
        try:
            step = json.loads(line)
        except ValueError:
            continue
        if isinstance(step, dict) and "step" in step:
            yield step
