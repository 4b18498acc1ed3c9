"""The doctor on a real Docker engine that has no NVIDIA runtime, as on a machine without the container toolkit."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.containers.docker_program import Programs

from mscli.doctor.checks.check import Finding

pytestmark = pytest.mark.engines
Visit = Callable[..., dict[str, list[Finding]]]
START_TIMEOUT_S = 60.0


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[str]:
    """The address of a Docker engine of this test alone, with one image that any check would try."""
    program = shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None or shutil.which("docker") is None or os.getuid() != 0:
        pytest.skip("no dockerd that could be started")
    host = f"unix://{tmp_path}/docker.sock"
    places = ["--data-root", tmp_path / "data", "--exec-root", tmp_path / "exec", "--pidfile", tmp_path / "pid"]
    network = ["--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs"]
    process = subprocess.Popen([program, *places, "-H", host, *network], stderr=subprocess.PIPE, text=True)
    ready = threading.Event()
    lines: list[str] = []
    threading.Thread(target=_follow, args=(process, lines, ready), daemon=True).start()
    try:
        if not ready.wait(START_TIMEOUT_S) or process.poll() is not None:
            pytest.skip(f"dockerd does not start here: {lines[-3:]}")
        image = subprocess.run(["docker", "-H", host, "import", "-", "ubuntu:24.04"], input=_archive(), check=True)
        assert image.returncode == 0
        yield host
    finally:
        process.terminate()
        process.wait(30)


def _follow(process: subprocess.Popen[str], lines: list[str], ready: threading.Event) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        lines.append(line)
        if "API listen on" in line:
            ready.set()
    ready.set()


def _archive() -> bytes:
    """A root file system of one empty file: no container of it has to run."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("empty"))
    return held.getvalue()


def test_a_docker_without_the_nvidia_toolkit_is_named_by_its_own_words(
    engine: str, programs: Programs, visit: Visit
) -> None:
    docker = shutil.which("docker")
    (programs.bin / "docker").symlink_to(str(docker))
    found = visit(asked=True, DOCKER_HOST=engine)
    assert found["engine"][0].status == "ok"
    assert (found["runtime"][0].status, found["runtime"][0].code) == ("fail", "docker_gpu")
    tried = found["gpus"][0]
    assert (tried.status, tried.code) == ("fail", "docker_gpu")
    assert "could not select device driver" in tried.seen


def test_a_docker_that_is_stopped_is_named_by_its_own_words(programs: Programs, visit: Visit, tmp_path: Path) -> None:
    if (docker := shutil.which("docker")) is None:
        pytest.skip("no docker")
    (programs.bin / "docker").symlink_to(docker)
    found = visit(DOCKER_HOST=f"unix://{tmp_path}/nobody.sock")["engine"][0]
    assert (found.status, found.code) == ("warn", "engine_missing")
    assert "Cannot connect to the Docker daemon" in found.evidence[0] or "failed to connect" in found.evidence[0]
