"""A user whose engine does what a test orders."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from support import SUPPORT
from support.faults.user import User


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
