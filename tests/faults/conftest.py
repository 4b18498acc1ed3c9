"""A user whose engine does what a test orders."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from support import SUPPORT
from support.faults.user import User, until


@pytest.fixture
def user(user_env: Mapping[str, str], home: Path, tmp_path: Path) -> Iterator[User]:
    programs, orders = tmp_path / "bin", tmp_path / "orders"
    programs.mkdir()
    orders.mkdir()
    server = programs / "llama-server"
    text = (SUPPORT / "faults" / "obedient_server.py").read_text()
    server.write_text(text.replace("/usr/bin/env python3", sys.executable, 1))
    server.chmod(0o755)
    made = User({**user_env, "PATH": f"{programs}:{user_env['PATH']}", "SERVER_ORDERS": str(orders)}, home, orders)
    yield made
    for left in made.running:
        if left.poll() is None:
            left.kill()
            left.communicate()
    (orders / "stubborn").unlink(missing_ok=True)
    made.mscli("down", "--all")
    for pid in made.engines():
        subprocess.run(["kill", "-KILL", str(pid)], check=False)


@pytest.fixture
def small_memory(tmp_path: Path) -> Iterator[Path]:
    """A group of processes that may take 64 MB together: the kernel kills one that takes more."""
    root, limit = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"
    if not root.is_dir():
        root, limit = Path("/sys/fs/cgroup"), "memory.max"
    group = root / f"mscli-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / limit).write_text(str(64 * 2**20))
    except OSError as fault:
        pytest.skip(f"no group with a limit on memory can be made here: {fault}")
    yield group
    until(lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()
