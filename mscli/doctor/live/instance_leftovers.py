"""What instances leave behind: processes that live on and hold GPU memory, processes without a record, sockets."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mscli.doctor.live.check import Seen, fail, ok, warn
from mscli.doctor.live.instance_state import watched
from mscli.doctor.live.scene import Scene
from mscli.inventory.inventory import Gpu, Inventory, MigInstance
from mscli.lifecycle import instance
from mscli.lifecycle.process import MARK, describe, stat
from mscli.lifecycle.running import group
from mscli.planning.figures import gib

_DEAD = "ZXx"


def orphans(scene: Scene) -> Iterator[Seen]:
    """Processes of an instance that outlived its server, with the GPU memory that they hold."""
    found = False
    for record, now in watched(scene):
        if now.state not in (instance.CRASHED, instance.STOPPED) or not (pids := group(record)):
            continue
        found = True
        held = held_bytes(scene.inventory, pids)
        yield fail(
            "gpu_busy" if held or (held is None and record.plan.devices) else None,
            f"{len(pids)} processes of {record.name} live on without their server{_holding(held, record.plan.gpus)}",
            "They are ours and serve nobody: stop them.",
            *(describe(pid) for pid in pids),
            command=f"mscli down {record.name}",
        )
    if not found:
        yield ok("no process has outlived its instance")


def _holding(held: int | None, gpus: Collection[int]) -> str:
    if held:
        return f" and hold {gib(held)} of GPU memory"
    if held is None and gpus:
        return f" and hold memory of GPU {', '.join(map(str, gpus))}; the driver does not say how much"
    return ""


def held_bytes(inventory: Inventory, pids: Collection[int]) -> int | None:
    """GPU memory that these processes hold; 0 where they hold none, None where the driver names them without bytes."""
    parts: list[Gpu | MigInstance] = [*inventory.gpus, *(part for gpu in inventory.gpus for part in gpu.mig.instances)]
    sizes = [holder.used_bytes for part in parts for holder in part.holders if holder.pid in pids]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


@dataclass(frozen=True)
class _Stray:
    """A process that mscli started. `name`: of its instance."""

    pid: int
    name: str


def unrecorded(scene: Scene) -> Iterator[Seen]:
    """Processes of ours whose record is gone: nothing else would ever find or stop them."""
    known = {record.mark for record in scene.records} | {record.name for record in scene.records}
    by_name: dict[str, list[int]] = {}
    for stray in _ours(scene.places.instances):
        if stray.name not in known and not (scene.places.instances / stray.name / "record.json").exists():
            by_name.setdefault(stray.name, []).append(stray.pid)
    for name, pids in sorted(by_name.items()):
        held = held_bytes(scene.inventory, pids)
        yield fail(
            "gpu_busy" if held else None,
            f"{len(pids)} processes of an instance {name} run, and its record is gone{_holding(held, ())}",
            "mscli no longer knows them: look at them, and stop them by hand.",
            *(describe(pid) for pid in pids),
            command=f"kill {' '.join(map(str, pids))}",
        )
    if not by_name:
        yield ok("every process that mscli started has its record")


def _ours(instances: Path) -> Iterator[_Stray]:
    """This user's processes that carry an instance's mark, of the instances below this folder. An engine that sets its
    own title overwrites its environment: then the folder that it works in tells."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or (seen := stat(int(entry))) is None or seen.state in _DEAD:
            continue
        env = _environment(int(entry))
        folder = Path(env["TMPDIR"]).parent if MARK in env and "TMPDIR" in env else _working_folder(int(entry))
        if folder is not None and folder.parent == instances:
            yield _Stray(int(entry), env[MARK].rpartition(":")[0] if MARK in env else folder.name)


def _environment(pid: int) -> Mapping[str, str]:
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (entry.decode(errors="replace").partition("=") for entry in raw.split(b"\0") if b"=" in entry)
    return {name: value for name, _, value in pairs}


def _working_folder(pid: int) -> Path | None:
    try:
        return Path(os.readlink(f"/proc/{pid}/cwd").removesuffix(" (deleted)"))
    except OSError:
        return None


def leftovers(scene: Scene) -> Iterator[Seen]:
    """Temporary files and sockets of instances that no longer run."""
    for record, now in watched(scene):
        folder = scene.places.instances / record.name / "tmp"
        if now.state not in (instance.CRASHED, instance.STOPPED) or group(record) or not folder.is_dir():
            continue
        count = sum(1 for _ in folder.rglob("*"))
        if count:
            yield warn(
                None,
                f"{record.name} left {count} temporary files or sockets behind",
                "They go with `mscli down`, or with its next start.",
                str(folder),
                command=f"mscli down {record.name}",
            )
