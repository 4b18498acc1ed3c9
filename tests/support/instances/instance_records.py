"""Instances as they are found on a machine: records, and real processes of a test's own that write their logs."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mscli.catalog.sampling import Sampling
from mscli.instances.process import Identity, wait_death
from mscli.instances.records import Record, Records, Request
from mscli.instances.store import SCHEMA
from mscli.planning.plan import Overrides, Plan

PLAN = Plan(
    "rehearsal", "llama.cpp", "rehearsal", "q8_0", "safe", ("why",), 4096, "f16", 1, 0, 1, (), (), (), 0, 0,
)  # fmt: skip
IDLE = "import time; print('up', flush=True); time.sleep(600)"


def write_record(records: Records, name: str, identity: Identity | None, mark: str, **changed: object) -> Record:
    """A record as `mscli up` writes it, in a folder with a log."""
    folder = records.prepare(name)
    (folder / "tmp").mkdir(exist_ok=True)
    (folder / "log").touch()
    record = Record(
        SCHEMA, name, Request("rehearsal", None, None, None, Overrides()), PLAN, "A model", True, "m",
        Sampling(None, None, None), None, "none", (), identity, None, mark, "1.0", ("llama-server", "--jinja"), {},
        "127.0.0.1", 1, "/health", None, folder / "log", (), 1.5,
    )  # fmt: skip
    record = replace(record, **changed)  # type: ignore[arg-type]
    records.save(record)
    return record


def python(
    code: str, *args: str, log: Path, env: Mapping[str, str], cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """A Python in a session of its own, whose outputs go to `log`."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-c", code, *args], env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL,
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip


def await_words(words: str, log: Path, child: subprocess.Popen[bytes]) -> str:
    """The log, once it holds `words`."""
    deadline = time.monotonic() + 20
    while words not in (text := log.read_text()):
        assert time.monotonic() < deadline, f"the test's process never came up: {text}"
        wait_death(child.pid, 0.02)
    return text
