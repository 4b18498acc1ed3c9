"""The platform. Imported by vLLM alone, in its own environment."""

import os
from typing import Any

from vllm.platforms.cpu import CpuPlatform

KV_BYTES = 2**30


class InGpusPlace(CpuPlatform):
    """The CPU, with a KV cache of 1 GiB for each worker: on GPUs its size follows from their memory."""

    @classmethod
    def check_and_update_config(cls, vllm_config: Any) -> None:
        """What vLLM has each platform do to its settings."""
        from vllm.config import CompilationMode  # which itself asks for the platform while it is imported

        vllm_config.parallel_config.worker_cls = "in_gpus_place.worker.HoldingWorker"
        vllm_config.cache_config.kv_cache_memory_bytes = KV_BYTES
        vllm_config.compilation_config.mode = CompilationMode.NONE  # a minute of a compiler saved
        if vllm_config.parallel_config.world_size > 1:
            os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"  # else each worker wants a NUMA node
            os.environ["OMP_NUM_THREADS"] = "1"  # and they would wait for each other's threads
        super().check_and_update_config(vllm_config)
