"""Who holds GPU memory, read from a /proc of our own making."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from mscli.inventory.host import holder

CONTAINER = "9d8c" * 16


def _process(
    proc: Path, pid: int, cmdline: str = "", cgroup: str = "0::/", uid: str = "0", name: str = "python3"
) -> None:
    folder = proc / str(pid)
    folder.mkdir()
    (folder / "status").write_text(f"Name:\t{name}\nState:\tS (sleeping)\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")
    (folder / "cmdline").write_text(cmdline)
    (folder / "cgroup").write_text(cgroup)


def test_user_and_command(tmp_path: Path) -> None:
    _process(tmp_path, 4242, "python\0-m\0vllm.entrypoints\0--port\08000\0", uid=str(os.getuid()))
    held = holder(4242, 5 * 2**30, tmp_path)
    assert (held.pid, held.used_bytes) == (4242, 5 * 2**30)
    assert held.command == "python -m vllm.entrypoints --port 8000"
    assert held.user == pwd.getpwuid(os.getuid()).pw_name
    assert held.container is None


def test_a_process_without_arguments_goes_by_its_name(tmp_path: Path) -> None:
    _process(tmp_path, 7, name="Xorg")
    assert holder(7, None, tmp_path).command == "Xorg"


def test_a_user_without_a_name_is_a_number(tmp_path: Path) -> None:
    _process(tmp_path, 7, uid="3999999")
    assert holder(7, None, tmp_path).user == "3999999"


def test_a_process_that_is_not_there_is_still_a_holder(tmp_path: Path) -> None:
    held = holder(4242, 100, tmp_path)
    assert (held.pid, held.user, held.command, held.container, held.used_bytes) == (4242, None, None, None, 100)


@pytest.mark.parametrize(
    "cgroup",
    [
        f"0::/system.slice/docker-{CONTAINER}.scope\n",
        f"12:memory:/docker/{CONTAINER}\n11:cpu:/docker/{CONTAINER}\n0::/\n",
        f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-pod1.slice/cri-containerd-{CONTAINER}.scope\n",
        f"0::/machine.slice/libpod-{CONTAINER}.scope/container\n",
        f"0::/docker/{'1f2e' * 16}/docker/{CONTAINER}\n",
    ],
    ids=["docker v2", "docker v1", "kubernetes", "podman", "docker in docker"],
)
def test_the_container_that_a_holder_runs_in(cgroup: str, tmp_path: Path) -> None:
    _process(tmp_path, 7, "vllm\0serve\0", cgroup)
    assert holder(7, None, tmp_path).container == CONTAINER


def test_a_process_of_this_machine() -> None:
    held = holder(os.getpid(), None, Path("/proc"))
    assert held.user == pwd.getpwuid(os.getuid()).pw_name
    assert held.command
