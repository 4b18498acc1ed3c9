"""A log as the doctor reads it: without wrappings, escape sequences, harmless noise and endless repetition."""

from __future__ import annotations

import re
from collections import Counter, deque
from pathlib import Path
from typing import BinaryIO

from mscli.diagnosis.log_formats import decoded, unwrapped

READ_BYTES = 50 * 2**20
_BLOCK = 2**16
_REPEATS = 3
_ENDING = 60
_LONGEST = 4000
_MOST = 8_000

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_CHANGING = re.compile(r"0x[0-9a-f]+|[0-9a-f]{8,}|\d+|[█▉▊▋▌▍▎▏#=]{3,}")

# Lines of healthy engines that look like failures.
_NOISE = re.compile(
    r"""key\ not\ found(?:"|\ )\ ?key=                      # Ollama reads optional GGUF keys
    |EngineDeadError|nanobind:\ leaked|\bleaked\ (?:\d+\ )?(?:instances|types|functions|semaphore|shared_memory|keep)
    |resource_tracker.*(?:leaked|UserWarning)|destroy_process_group\(\)\ was\ not\ called
    |CPU\ gemm_4bit_forward|No\ module\ named\ 'kernels'
    |failed\ to\ enumerate\ .*backends                       # llama-bench looks into folders that need not exist
    |platform\ is\ not\ available\ because:\ No\ module    # vLLM tries every platform
    |No\ module\ named\ '(?:amdsmi|torch_xla|habana_frameworks|libtpu)'
    |Custom\ allreduce\ is\ disabled|SymmMemCommunicator:|custom_all_reduce\.py.*will\ be\ disabled
    |Overriding\ VLLM_WORKER_MULTIPROC_METHOD|pin_memory=False
    |full\ capacity\ of\ the\ model\ will\ not\ be\ utili[sz]ed
    |couldn't\ find\ '?\S*id_ed25519                         # Ollama makes its key at the first start
    |NCCL\ INFO\ (?!.*(?:\bfail|\berror|via\ P2P|via\ SHM|Connected\ all)) # it looks for plugins that need not exist
    |Exception\ ignored\ in|Warning:\ .*unauthenticated\ requests\ to\ the\ HF\ Hub|unauthenticated\ requests
    |failed\ to\ automatically\ increase                      # vLLM names the limit of open files at every start
    |^(?!.*hugging).*HTTP/[12](?:\.[01])?"\ (?!429)\d{3}      # requests that a server answered
    |Invalid\ API\ Key|using\ base\ model\ tokenizer\ instead
    |\bclient\b.*\b(?:has\ gone|disconnected)
    |server\ config|"server\ config"\ env=|^\s*(?:\d+\s*\|\s*)?\#include\b
    """,
    re.VERBOSE | re.IGNORECASE,
)


def read_log(path: Path) -> tuple[str, bool]:
    """The last 50 MB of a log file or pipe, and whether it is longer. Waits for the end of a pipe. Raises OSError."""
    with path.open("rb") as handle:
        return _tail(handle) if handle.seekable() else read_stream(handle)


def _tail(handle: BinaryIO) -> tuple[str, bool]:
    size = handle.seek(0, 2)
    handle.seek(max(0, size - READ_BYTES) & ~1)  # an even place: UTF-16 takes two bytes
    return decoded(handle.read()), size > READ_BYTES


def read_stream(stream: BinaryIO, limit_bytes: int = READ_BYTES) -> tuple[str, bool]:
    """The last `limit_bytes` of what comes in until its end, and whether there was more. Waits for the end."""
    kept: deque[bytes] = deque()
    size, cut = 0, False
    while block := stream.read(_BLOCK):
        kept.append(block)
        size += len(block)
        while size - len(kept[0]) >= limit_bytes:
            size -= len(kept.popleft())
            cut = True
    return decoded(b"".join(kept)), cut


def telling(log: str) -> list[str]:
    """The lines in which a cause can show, in their order: each shape of a line at most three times, but the end whole.

    Progress bars that overwrite themselves count as lines. A line is cut at 4000 characters. Of more than 8,000 lines
    the first quarter and the last three quarters of that number are kept.
    """
    lines = [line.rstrip()[:_LONGEST] for line in _ESCAPES.sub("", unwrapped(log)).replace('\\"', '"').splitlines()]
    end = len(lines) - _ENDING
    seen: Counter[str] = Counter()
    kept: list[str] = []
    for number, line in enumerate(lines):
        shape = _CHANGING.sub("#", line)
        seen[shape] += 1
        if line.strip() and (seen[shape] <= _REPEATS or number >= end) and not _NOISE.search(line):
            kept.append(line)
    return kept if len(kept) <= _MOST else kept[: _MOST // 4] + kept[-(_MOST - _MOST // 4) :]
