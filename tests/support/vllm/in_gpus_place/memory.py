"""The memory of the described machine's GPUs, as NVML tells it."""

import fcntl
import json
from pathlib import Path


def change(path: str, gpu: int, by: float, pid: int | None) -> int:
    """Note that a process holds more (or less) memory of a GPU. `by`: MiB, or the share of the GPU where it is below 1.

    The description has a row for each GPU. Returns the MiB.
    """
    with Path(f"{path}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the workers start together
        machine = json.loads(Path(path).read_text())
        row = machine["gpus"][gpu]
        size = int(row["memory_mib"]["total"] * by) if 0 < by < 1 else int(by)
        row["memory_mib"]["used"] += size
        row["compute"] = [{"pid": pid, "memory_mib": size}] if pid else []
        fresh = Path(f"{path}.fresh")
        fresh.write_text(json.dumps(machine))
        fresh.replace(path)
    return size
