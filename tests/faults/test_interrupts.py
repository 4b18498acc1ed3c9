"""A signal at the moments in which it could be lost, or its answer, or in which something could be left."""

from __future__ import annotations

import signal
from pathlib import Path

from support.run_mscli import call, environment

# What logging does by itself, with a Ctrl-C at exactly that moment of the first fork. Under nohup there is one: the
# engine is not to inherit that a signal is ignored.
AFTER_A_FORK = """
import os, signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
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


# At the program's first look at its arguments.
AT_THE_FIRST_LOOK = """
import signal, sys
def heard(frame, event, arg):
    if event == "call" and frame.f_code.co_name == "resolved":
        sys.setprofile(None)
        signal.raise_signal(signal.SIGINT)
sys.setprofile(heard)
"""


def test_a_ctrl_c_before_the_arguments_are_read_is_told_as_json_too(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(AT_THE_FIRST_LOOK)
    env = environment(tmp_path, tmp_path / "home", PYTHONPATH=str(tmp_path))
    done = call("engines", "--json", env=env)
    assert (done.code, done.err) == (130, "")
    assert done.error["code"] == "interrupted"


# When the answer is out, and it is about to end.
AT_THE_END = AT_THE_FIRST_LOOK.replace("resolved", "_finished")


def test_a_ctrl_c_after_the_answer_adds_no_second_one(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(AT_THE_END)
    env = environment(tmp_path, tmp_path / "home", PYTHONPATH=str(tmp_path))
    done = call("engines", "--json", env=env)
    assert done.code == 130
    assert done.envelope["ok"], done.out


# While the answer's conversation is saved.
AT_THE_SAVING = AT_THE_FIRST_LOOK.replace('"resolved"', '"save" and "chat/conversation" in frame.f_code.co_filename')


def test_a_ctrl_c_after_a_reply_in_json_adds_no_second_object(tmp_path: Path) -> None:
    env = environment(tmp_path, tmp_path / "home")
    try:
        assert call("up", "rehearsal", env=env).code == 0
        (tmp_path / "sitecustomize.py").write_text(AT_THE_SAVING)
        done = call("chat", "hello", "--json", env={**env, "PYTHONPATH": str(tmp_path)})
    finally:
        call("down", "--all", env=env)
    assert (done.code, "interrupted" in done.err) == (130, True)
    assert done.envelope["ok"], done.out


# When the doctor has made the file with which it tries a folder, and writes to it.
AT_THE_FIRST_BYTE = """
import os, signal, threading
def heard(frame, event, arg):
    if event == "c_call" and arg is os.write and frame.f_code.co_name == "written":
        os.kill(os.getpid(), signal.SIGKILL)
threading.setprofile(heard)
"""


def test_a_doctor_that_is_killed_leaves_no_file_with_which_it_tried_a_folder(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    (tmp_path / "sitecustomize.py").write_text(AT_THE_FIRST_BYTE)
    env = environment(tmp_path, tmp_path / "home", PYTHONPATH=str(tmp_path), TMPDIR=str(tmp_path / "hub"))
    done = call("doctor", "--only", "weights", env=env)
    assert done.code == -signal.SIGKILL, "it was not killed: nothing is shown by this test"
    assert list((tmp_path / "hub").rglob("*")) == []
