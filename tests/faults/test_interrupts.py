"""A Ctrl-C at a moment in which Python itself drops it."""

from __future__ import annotations

from pathlib import Path

from support.run_mscli import call, environment

# What logging does by itself, with a Ctrl-C at exactly that moment of the first fork.
AFTER_A_FORK = """
import os, signal
left = [1]
def interrupted():
    if left:
        left.pop()
        signal.raise_signal(signal.SIGINT)
os.register_at_fork(after_in_parent=interrupted)
"""


def test_a_ctrl_c_right_after_a_fork_ends_the_command(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(AFTER_A_FORK)
    env = environment(tmp_path, tmp_path / "home")
    done = call("up", "rehearsal", "--name", "one", env={**env, "PYTHONPATH": str(tmp_path)})
    call("down", "--all", env=env)
    assert "Traceback" not in done.err
    assert done.code == 130, done.err
