"""What makes vLLM's build for the CPU pass as its CUDA build on a machine whose GPUs are described, not there.

A platform plugin of vLLM's own kind: the platform is the CPU, whatever NVML says, and each worker holds a GPU's memory.
"""


def platform() -> str:
    """What vLLM asks a platform plugin for: the platform's class, by name."""
    return "in_gpus_place.platform.InGpusPlace"
