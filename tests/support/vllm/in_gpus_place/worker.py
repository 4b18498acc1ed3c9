"""The worker. Imported by vLLM alone, in its own environment."""

import os
import subprocess
import sys

from in_gpus_place.memory import change
from vllm.v1.worker.cpu_worker import CPUWorker

SHARE = 0.88  # about what the flags of the plans here make vLLM take
# What a driver does when a process ends.
RELEASE = """
import os, select, sys
from in_gpus_place.memory import change
path, gpu, taken, pid = sys.argv[1], *map(int, sys.argv[2:])
poll = select.poll()
poll.register(os.pidfd_open(pid), select.POLLIN)
poll.poll()
change(path, gpu, -taken, None)
"""


class HoldingWorker(CPUWorker):
    """A worker that holds memory of its GPU, as the described machine's NVML tells it, until it ends."""

    def init_device(self) -> None:
        """What vLLM has each worker do first."""
        super().init_device()
        hold(os.environ["MSCLI_TEST_MACHINE"], self.local_rank)


def hold(path: str, gpu: int) -> None:
    """Take memory of that GPU until this process ends."""
    taken = change(path, gpu, SHARE, os.getpid())
    # Not a child: vLLM ends with all of its own.
    words = ["sh", "-c", '"$@" &', "sh", sys.executable, "-c", RELEASE, path, str(gpu), str(taken), str(os.getpid())]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MSCLI_INSTANCE", "LD_PRELOAD"))}
    subprocess.Popen(words, env=env, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
