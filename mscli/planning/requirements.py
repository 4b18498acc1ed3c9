"""What the hardware must be, apart from memory: compute capability, driver, host RAM and disk."""

from __future__ import annotations

from mscli.inventory.inventory import Inventory
from mscli.planning.devices import Room
from mscli.planning.memory.llamacpp import IMAGE_TOKENS as GGML_IMAGE_TOKENS
from mscli.planning.plan import gib, tokens
from mscli.planning.request import Request, parse_version

Capability = tuple[int, ...]

# Least compute capability by quantisation. BF16 arithmetic starts with Ampere; FP8 weights run weight-only (Marlin)
# from Ampere and natively from Ada; W4A16 kernels start with Turing; NVFP4 runs natively from Blackwell (10.0).
SAFETENSORS_NEEDS: dict[str, Capability] = {
    "bf16": (8, 0), "fp8": (8, 0), "w8a8": (8, 0), "w4a16": (7, 5), "nvfp4": (10, 0),
    "bnb-4bit": (7, 5), "bnb-8bit": (7, 5),
}  # fmt: skip
# Prebuilt llama.cpp and Ollama reach down to Maxwell; quantised KV needs flash attention (6.0, not on 7.2).
GGUF_NEEDS: Capability = (5, 0)
FP8_NATIVE: Capability = (8, 9)
# Ollama from 0.30 ships a CUDA 12 runtime whose kernels a driver before 550 cannot compile.
OLLAMA_DRIVER = 550
# NVML's errors by their cause code.
NVML_CAUSES = {
    "DRIVER_NOT_LOADED": "no_driver", "LIBRARY_NOT_FOUND": "nvml_not_found",
    "LIB_RM_VERSION_MISMATCH": "nvml_mismatch", "GPU_IS_LOST": "xid",
}  # fmt: skip


def refusals(request: Request, room: Room) -> tuple[str, ...]:
    """Why this device cannot run the variant at any size."""
    found = parse_version(room.compute_capability)
    if found is None:
        return (f"GPU {room.gpu} ({room.name}): its compute capability is unknown",)
    where = f"GPU {room.gpu} ({room.name}, compute capability {room.compute_capability})"
    needed = least_capability(request)
    if found < needed:
        return (
            f"{where}: {request.variant.quantisation} on {request.profile.engine} needs {_dotted(needed)} or newer",
        )
    stated = parse_version(request.profile.needs.compute_capability)
    if stated and found < stated:
        return (f"{where}: profile {request.profile.name} needs {_dotted(stated)} or newer",)
    return ()


def least_capability(request: Request) -> Capability:
    """The least compute capability for the variant on this engine."""
    if request.profile.engine in ("ollama", "llama.cpp"):
        return GGUF_NEEDS
    return SAFETENSORS_NEEDS.get(request.variant.quantisation, GGUF_NEEDS)


def kv_types(request: Request, room: Room) -> tuple[str, ...]:
    """The request's KV types that this device can run."""
    found = parse_version(room.compute_capability) or (0,)
    flash = found >= (6, 0) and found != (7, 2)
    return tuple(
        kind for kind in request.kv_types
        if kind == "f16" or (kind == "fp8" and found >= (8, 0)) or (kind.startswith("q") and flash)
    )  # fmt: skip


def remarks(request: Request, room: Room) -> tuple[str, ...]:
    """What works differently on this device, in words."""
    found = parse_version(room.compute_capability) or (0,)
    if request.variant.quantisation == "fp8" and found < FP8_NATIVE:
        return (f"FP8 runs weight-only on {room.name} (native from compute capability 8.9): same memory, less speed",)
    if request.variant.quantisation == "w4a16" and found < (8, 0):
        return (f"{room.name} has no bfloat16: activations run in float16",)
    return ()


def image_remarks(request: Request, context: int) -> tuple[str, ...]:
    """Whether the images allowed per request, at their largest, would fill the context."""
    vision = request.model.architecture.vision
    if vision is None or not request.images:
        return ()
    per_image = GGML_IMAGE_TOKENS if request.profile.engine in ("ollama", "llama.cpp") else vision.max_image_tokens
    taken = request.images * min(per_image, vision.max_image_tokens)
    if taken <= context:
        return ()
    return (f"{request.images} images of the largest size take {tokens(taken)}, more than the context holds",)


def machine_refusals(request: Request, inventory: Inventory) -> tuple[str, ...]:
    """Why this machine's driver or RAM rules the profile out."""
    return (*_cuda(request, inventory), *_driver(request, inventory), *_ram(request, inventory))


def machine_cause(request: Request, inventory: Inventory) -> str:
    """The cause code of what machine_refusals says."""
    return "host_ram" if not (*_cuda(request, inventory), *_driver(request, inventory)) else "driver_too_old"


def no_device_cause(inventory: Inventory) -> str | None:
    """The cause code of a machine on which no GPU can be used, None where none says it."""
    if inventory.nvml is not None:
        return NVML_CAUSES.get(inventory.nvml.code)
    return hidden_cause(inventory)


def hidden_cause(inventory: Inventory) -> str | None:
    """The cause code of GPUs that are there and that CUDA would not show, None where none says it."""
    hidden = [gpu for gpu in inventory.gpus if not gpu.visible]
    if inventory.visible_devices is not None:
        return "visible_devices" if hidden else None
    return "xid" if any(problem.code == "GPU_IS_LOST" for gpu in hidden for problem in gpu.problems) else None


def _cuda(request: Request, inventory: Inventory) -> tuple[str, ...]:
    needed, found = parse_version(request.profile.needs.cuda), parse_version(inventory.cuda)
    if request.profile.device == "cpu" or needed is None or found is None or found >= needed:
        return ()
    return (
        f"the driver supports CUDA {inventory.cuda}; profile {request.profile.name} needs {request.profile.needs.cuda}",
    )


def _driver(request: Request, inventory: Inventory) -> tuple[str, ...]:
    found = parse_version(inventory.driver)
    if request.profile.engine != "ollama" or request.profile.device == "cpu" or found is None:
        return ()
    from mscli.planning.memory.ollama import LLAMA_SERVER

    if found[0] >= OLLAMA_DRIVER or (request.version and request.version < LLAMA_SERVER):
        return ()
    return (f"Ollama from 0.30 needs NVIDIA driver {OLLAMA_DRIVER} or newer; {inventory.driver} is installed",)


def _ram(request: Request, inventory: Inventory) -> tuple[str, ...]:
    needed = request.profile.needs.ram_bytes
    if needed is None or inventory.host.ram_total_bytes >= needed:
        return ()
    return (
        f"profile {request.profile.name} needs {gib(needed)} of host RAM; "
        f"this machine has {gib(inventory.host.ram_total_bytes)}",
    )


def machine_remarks(request: Request, inventory: Inventory) -> tuple[str, ...]:
    """Doubts about this machine that do not forbid a start."""
    notes: list[str] = []
    needs = request.profile.needs
    if needs.cuda and inventory.driver and inventory.cuda is None and request.profile.device == "gpu":
        notes.append(f"the driver's CUDA version is unknown; CUDA {needs.cuda} is needed")
    if inventory.host.surroundings == "wsl" and request.profile.device == "gpu":
        notes.append("Windows silently moves what does not fit to host memory; 1.2 GiB stay free")
    disk = inventory.host.disk_free_bytes
    wanted = needs.disk_bytes or request.variant.download_bytes
    if disk is not None and disk < wanted:
        notes.append(f"{gib(disk)} of disk space free; {gib(wanted)} needed unless the weights are already downloaded")
    return tuple(notes)


def _dotted(version: Capability) -> str:
    return ".".join(str(part) for part in version)
