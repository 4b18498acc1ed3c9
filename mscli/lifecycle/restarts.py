"""What the end of a supervised engine means, and when to start it again.

`python -m mscli.lifecycle.restarts NAME STATUS HOW PHASE SECONDS KILLS` (see `Ended`) prints after how many seconds.

Asked by the instance's companion each time its engine has ended. The end is written down in the instance's folder and
record; one that would only repeat itself (a flag that the engine does not know, a file that is missing) is not tried
again, and neither is one that comes too often.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

from mscli.diagnosis.causes import UNKNOWN, Cause, Facts
from mscli.frozen import frozen, replace
from mscli.instances.json_values import append_lines, load_lines
from mscli.instances.log import begin_part, part
from mscli.instances.process import MARK, memory_kills
from mscli.instances.records import End, Record, Records
from mscli.paths import places

STRAY_KILL = "engine_crashed"
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
# More ends than these within the window, and it is left alone.
MOST_ENDS, WINDOW_S = 5, 600.0

_BY_SIGKILL = (-9, 137)  # 137: told by a container's client
_BY_STATUS_ALONE = ("host_ram", UNKNOWN, STRAY_KILL)  # what a kill is taken for where the log shows nothing
# Causes that another start of the same command meets again. After it has served, none is for certain.
_HOPELESS = frozenset(
    (
        "driver_too_old", "driver_vs_compat", "compute_capability", "cuda_arch", "mig", "oom_weights", "oom_kv",
        "tp_divisibility", "torch_abi", "python_env", "python_version", "mistral_common", "transformers_old",
        "transformers_api", "bitsandbytes", "build", "backend_no_gpu_build", "version_backend_old", "unknown_arch",
        "gguf_unsupported", "tokenizer_format", "cli_flags", "hf_gated", "corrupt_weights", "model_not_found",
        "engine_missing", "permissions",
    )
)  # fmt: skip
_LOG_BYTES = 2**20
_LINES = 8


@frozen
class Ended:
    """How an engine ended, as its companion saw it. `how`: exit, or hung (stopped for not answering); `status`: exit
    status, negative for a signal; `served`: it had been ready; `memory_kills`: of the kernel, before it was started."""

    status: int
    how: str
    served: bool
    seconds: float
    memory_kills: int | None


def cause_of(log: str, engine: str, status: int | None, kills_before: int | None, facts: Facts | None = None) -> Cause:
    """Why an engine has ended: by its log, its exit status, and the kernel's count of kills for want of memory."""
    from mscli.diagnosis.diagnose import start_failure  # reads the signatures; only an end needs them

    cause = start_failure(log, engine, status, facts)
    stray = status in _BY_SIGKILL and kills_before is not None and kills_before == memory_kills()
    if not stray or cause.code not in _BY_STATUS_ALONE:
        return cause
    summary = "it was killed (signal 9), and not by the kernel for lack of memory"
    return replace(cause, code=STRAY_KILL, summary=summary, remedy="Start it again.")


def wait_s(ended: Ended, cause: Cause, earlier: Sequence[End], now: float) -> float | None:
    """Seconds to wait before the next start, longer after each end; None: it is not started again."""
    if not ended.served and cause.code in _HOPELESS:
        return None
    recent = sum(now - end.at < WINDOW_S for end in earlier)
    if recent >= MOST_ENDS:
        return None
    return float(min(FIRST_WAIT_S * 2**recent, LONGEST_WAIT_S))


def hopeless(cause: str) -> bool:
    """True for a cause that another start of the same command would meet again."""
    return cause in _HOPELESS


def judge(record: Record, ended: Ended, records: Records) -> float | None:
    """Write the end down; seconds until the next start, None for no further one. Raises OSError, FILE or DISK_FULL."""
    path, now = records.run_dir(record.name) / "ends.jsonl", time.time()
    log = part(record.log, record.log_start, _LOG_BYTES)
    cause = cause_of(log, record.plan.engine, ended.status, ended.memory_kills)
    if ended.how == "hung" and cause.code in _BY_STATUS_ALONE:
        cause = replace(cause, code=UNKNOWN, summary="it stopped answering and was stopped")
    lines = tuple(line[:200] for line in log.splitlines() if line.strip())[-_LINES:]
    after_s = wait_s(ended, cause, load_lines(path, End), now)
    end = End(now, ended.how, ended.status, ended.served, cause.code, cause.summary, lines, after_s)
    append_lines(path, [end])
    with records.still(record) as kept:
        if kept is None or records.is_stopping(record.name):
            return None
        kept = replace(kept, last_end=end)
        if after_s is not None:
            kept = replace(kept, restarts=kept.restarts + 1, log_start=begin_part(record.log))
        records.save(kept)
    return after_s


def main(name: str, status: str, how: str, phase: str, seconds: str, kills: str) -> int:
    """Print after how many seconds to start the engine again, or `never`."""
    records = Records(places())
    record = records.get(name)
    ended = Ended(int(status), how, phase == "served", float(seconds), int(kills) if kills else None)
    ours = record is not None and record.mark == os.environ.get(MARK)
    after_s = judge(record, ended, records) if record and ours else None
    sys.stdout.write(f"{'never' if after_s is None else after_s}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
