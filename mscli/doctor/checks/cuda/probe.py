"""Starts CUDA as an engine would, in a process of its own: it may hang or crash without taking mscli along.

Run as a program, alone (it imports nothing of mscli); its arguments are the devices to leave alone, as a context takes
some hundred MiB that a full GPU's engine may need. One JSON line per step, as soon as the step is over: `load` (the
file that the loader chose), the calls before any device, and then for each device what its last call said.
"""

from __future__ import annotations

import ctypes
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

LIBRARY = "libcuda.so.1"
ALLOCATED_BYTES = 2**20
_write = threading.Lock()


def tell(step: str, **what: Any) -> None:
    """One step's line. It is written with its end in one call, as devices are tried side by side."""
    with _write:
        sys.stdout.write(json.dumps({"step": step, **what}) + "\n")
        sys.stdout.flush()


def main(spared: set[str]) -> None:
    """Load, initialise, and take a context and a megabyte of each device that is not among `spared`."""
    try:
        cuda = ctypes.CDLL(LIBRARY)
    except OSError as fault:
        tell("load", error=str(fault))
        return
    tell("load", path=mapped())
    version, count = ctypes.c_int(), ctypes.c_int()
    calls = (
        ("cuInit", (0,)),
        ("cuDriverGetVersion", (ctypes.byref(version),)),
        ("cuDeviceGetCount", (ctypes.byref(count),)),
    )
    for call, arguments in calls:
        begun = time.monotonic()
        tell("begin", call=call)
        code = getattr(cuda, call)(*arguments)
        tell(call, code=code, name=error_name(cuda, code), seconds=round(time.monotonic() - begun, 3))
        if code:
            return
    tell("found", version=version.value, count=count.value)
    ordinals = [ordinal for ordinal in range(count.value) if str(ordinal) not in spared]
    workers = [threading.Thread(target=attempt, args=(cuda, ordinal), daemon=True) for ordinal in ordinals]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    tell("end")


def attempt(cuda: Any, ordinal: int) -> None:
    """Context and allocation on one device; tells the first call that fails."""
    device, context, memory = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
    total, free = ctypes.c_size_t(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(128)
    calls = (
        ("cuDeviceGet", lambda: (ctypes.byref(device), ordinal)),
        ("cuDeviceGetName", lambda: (name, len(name), device)),
        ("cuDeviceTotalMem_v2", lambda: (ctypes.byref(total), device)),
        ("cuDevicePrimaryCtxRetain", lambda: (ctypes.byref(context), device)),
        ("cuCtxSetCurrent", lambda: (context,)),
        ("cuMemAlloc_v2", lambda: (ctypes.byref(memory), ctypes.c_size_t(ALLOCATED_BYTES))),
        ("cuMemGetInfo_v2", lambda: (ctypes.byref(free), ctypes.byref(total))),
        ("cuMemFree_v2", lambda: (memory,)),
    )
    code, call = 0, ""
    for call, arguments in calls:
        code = getattr(cuda, call)(*arguments())
        if code:
            break
    told = {"name": name.value.decode(errors="replace"), "total": total.value, "free": free.value}
    tell("device", ordinal=ordinal, call=call, code=code, error=error_name(cuda, code), **told)


def error_name(cuda: Any, code: int) -> str:
    """CUDA's own name of an error; empty for none and where the library does not know it."""
    text = ctypes.c_char_p()
    if code == 0 or cuda.cuGetErrorName(code, ctypes.byref(text)) or not text.value:
        return ""
    return text.value.decode()


def mapped() -> str:
    """The file behind the library, links resolved."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.partition("/")[2]
        if "libcuda.so" in path:
            return f"/{path}"
    return ""


if __name__ == "__main__":
    main(set(sys.argv[1:]))
