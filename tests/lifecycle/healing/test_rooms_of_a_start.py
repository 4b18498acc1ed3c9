"""Which rooms of the house a start goes through."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.lifecycle.user_profiles import write


def loaded(env: dict[str, str], *args: str) -> tuple[int, set[str]]:
    """The exit code of a call, and the modules of mscli that it loaded."""
    argv = [sys.executable, "-X", "importtime", "-m", "mscli", *args]
    done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    names = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    return done.returncode, {name for name in names if name.startswith("mscli.")}


def test_a_start_that_fails_and_heals_never_enters_the_doctor(
    mscli: object, home: Path, user_env: dict[str, str]
) -> None:
    write(home, options="{teleport: 3}")
    code, modules = loaded(user_env, "up", "mine", "--json")
    assert code == 1
    assert {"mscli.lifecycle.healing", "mscli.lifecycle.healing.remedies"} <= modules
    assert not {name for name in modules if name.startswith("mscli.doctor")}
    write(home, kv_types="[q8_0, f16]", options="{flash-attn: 'off'}")
    code, modules = loaded(user_env, "up", "mine", "--json")
    assert code == 0
    assert not {name for name in modules if name.startswith("mscli.doctor")}
