"""The area `instances`: servers that were killed, workers that live on, records that are damaged, all of them real."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.doctor.visits import Doctor
from support.instances.instance_processes import Instances
from support.instances.instance_records import IDLE, PLAN
from support.run_mscli import Mscli

from mscli.instances.process import Identity, boot_id, wait_death
from mscli.planning.plan import GpuMemory

INSTANCES = ("--only", "instances")
OUT_OF_MEMORY = """\
ggml_backend_cuda_buffer_type_alloc_buffer: allocating 13664.06 MiB on device 0: cudaMalloc failed: out of memory
alloc_tensor_range: failed to allocate CUDA0 buffer of size 14327803904
llama_model_load: error loading model: unable to allocate CUDA0 buffer
"""


@pytest.fixture
def instances(home: Path) -> Iterator[Instances]:
    made = Instances(home)
    yield made
    made.stop()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def dead(name: str) -> Identity:
    """An identity of this boot that nobody has: pid 1 of another start."""
    return Identity(1, 2**40 + len(name), boot_id())


def test_no_instances_are_healthy(here: Doctor) -> None:
    seen = here(*INSTANCES)
    assert {found["status"] for found in seen.findings} == {"ok"}, seen.findings


def test_a_real_instance_is_ready_and_serves_what_was_planned(mscli: Mscli, here: Doctor) -> None:
    assert mscli("up", "rehearsal", "--json").code == 0
    seen = here(*INSTANCES)
    assert {found["status"] for found in seen.findings} == {"ok"}, seen.findings
    assert "is ready" in seen.good("instances.state")["seen"]
    assert "4,096 tokens" in seen.good("instances.context")["seen"]
    mscli("down")
    after = here(*INSTANCES)
    assert {found["status"] for found in after.findings} == {"ok"}, after.findings


def test_a_killed_server_is_found_with_its_log(mscli: Mscli, here: Doctor) -> None:
    up = mscli("up", "rehearsal", "--json")
    pid = up.data["instance"]["pid"]
    os.kill(pid, signal.SIGKILL)
    assert wait_death(pid, 10)
    seen = here(*INSTANCES)
    found = seen.bad("instances.state")
    assert (seen.code, found["status"]) == (5, "fail")
    assert "ended unexpectedly" in found["seen"]
    assert found["command"] == "mscli restart rehearsal"


def test_why_a_crashed_instance_ended_is_read_from_its_log(here: Doctor, instances: Instances) -> None:
    record = instances.record("one", dead("one"))
    record.log.write_text(OUT_OF_MEMORY)
    found = here(*INSTANCES).bad("instances.state")
    assert (found["status"], found["code"]) == ("fail", "oom_weights")
    assert "cudaMalloc failed" in str(found["evidence"])
    assert found["remedy"]


def test_what_an_earlier_start_logged_is_no_cause(here: Doctor, instances: Instances) -> None:
    record = instances.record("one", dead("one"), log_start=len(OUT_OF_MEMORY.encode()))
    record.log.write_text(f"{OUT_OF_MEMORY}main: loading model\n")
    found = here(*INSTANCES).bad("instances.state")
    assert (found["status"], found["code"]) == ("fail", None)
    assert found["evidence"] == ["main: loading model"]


def test_why_the_last_start_failed_is_read_from_what_it_left(here: Doctor, instances: Instances) -> None:
    folder = instances.records.prepare("gone")
    (folder / "log").write_text(OUT_OF_MEMORY)
    found = here(*INSTANCES).bad("instances.failed_starts")
    assert (found["status"], found["code"]) == ("warn", "oom_weights")
    assert found["command"] == "mscli logs gone"


def test_an_instance_of_an_earlier_boot_did_not_crash(here: Doctor, instances: Instances) -> None:
    port = free_port()
    instances.record("old", Identity(4711, 1, "an earlier boot"), port=port)
    found = here(*INSTANCES).bad("instances.state")
    assert (found["status"], found["code"]) == ("warn", None)
    with socket.create_server(("127.0.0.1", port)):
        assert str(os.getpid()) in here(*INSTANCES).bad("instances.state")["seen"], "who has its port now"


def test_a_halted_server_is_told_from_a_hanging_one(here: Doctor, instances: Instances) -> None:
    port = free_port()
    child = instances.serving("halted", port)
    (instances.records.run_dir("halted") / "ready").touch()
    child.send_signal(signal.SIGSTOP)
    found = here(*INSTANCES).bad("instances.state")
    child.send_signal(signal.SIGCONT)
    assert found["status"] == "fail"
    assert found["command"] == f"kill -CONT {child.pid}"


def test_a_port_that_somebody_else_answers(here: Doctor, instances: Instances) -> None:
    port = free_port()
    instances.serving("stranger", port)
    _, identity, mark = instances.run("mine", IDLE)
    instances.record("mine", identity, mark, port=port)
    shutil.rmtree(instances.records.run_dir("stranger"))
    found = here(*INSTANCES).bad("instances.state")
    assert (found["status"], found["code"]) == ("fail", "port")
    assert "of mine is in use by" in found["seen"]


def test_workers_that_outlived_their_server_are_found(here: Doctor, mscli: Mscli, instances: Instances) -> None:
    pids = instances.orphaned("broken")
    assert len(pids) == 1
    seen = here(*INSTANCES)
    found = seen.bad("instances.orphans")
    assert (seen.code, found["status"], found["command"]) == (5, "fail", "mscli down broken")
    assert str(pids[0]) in str(found["evidence"])
    assert mscli("down", "broken").code == 0
    here(*INSTANCES).good("instances.orphans")


def test_workers_that_hold_gpu_memory_are_why_the_gpu_is_busy(
    doctor: Doctor, instances: Instances, machine: Callable[..., dict[str, str]]
) -> None:
    memory = GpuMemory(0, "GPU-0", "card", 24, 23, 1, 10, 1, 5, 1, 1, 1, 4)
    pids = instances.orphaned("broken", plan=replace(PLAN, gpus=(0,), devices=("GPU-0",), memory=(memory,)))

    def hold(description: dict[str, Any]) -> None:
        description["gpus"][0]["compute"] = [{"pid": pids[0], "memory_mib": 9216}]

    found = doctor(*INSTANCES, env=machine("rtx4090", hold)).bad("instances.orphans")
    assert (found["code"], found["command"]) == ("gpu_busy", "mscli down broken")
    assert "9.0 GiB" in found["seen"]


def test_processes_whose_record_was_deleted_are_found(here: Doctor, instances: Instances) -> None:
    child = instances.serving("lost", free_port())
    here(*INSTANCES).good("instances.unrecorded")
    shutil.rmtree(instances.records.run_dir("lost"))
    seen = here(*INSTANCES)
    found = seen.bad("instances.unrecorded")
    assert (seen.code, found["status"]) == (5, "fail")
    assert "lost" in found["seen"]
    assert found["command"] == f"kill {child.pid}"


def test_a_shell_that_stands_in_an_instances_folder_is_nobodys_leftover(here: Doctor, instances: Instances) -> None:
    child = instances.serving("lost", free_port())
    shell = instances.stranger(instances.records.run_dir("lost"))
    shutil.rmtree(instances.records.run_dir("lost"))
    seen = here(*INSTANCES)
    assert seen.bad("instances.unrecorded")["command"] == f"kill {child.pid}"
    assert str(shell.pid) not in seen.text


def test_processes_of_another_home_are_none_of_ours(here: Doctor, instances: Instances, tmp_path: Path) -> None:
    elsewhere = Instances(tmp_path / "another-home", instances.started, instances.marks)
    child = elsewhere.serving("lost", free_port())
    shutil.rmtree(elsewhere.records.run_dir("lost"))
    seen = here(*INSTANCES)
    seen.good("instances.unrecorded")
    assert str(child.pid) not in seen.text


def test_a_damaged_record_is_named_and_left_alone(here: Doctor, instances: Instances) -> None:
    instances.record("torn", dead("torn"))
    path = instances.records.run_dir("torn") / "record.json"
    path.write_text('{"schema": ')
    found = here(*INSTANCES).bad("instances.records")
    assert found["status"] == "fail"
    assert "torn" in found["seen"]
    assert path.read_text() == '{"schema": '


def test_a_folder_and_a_key_that_others_may_read(here: Doctor, instances: Instances) -> None:
    instances.record("open", dead("open"), stopped_at=2.0)
    folder = instances.records.run_dir("open")
    (folder / "key").write_text("secret-key")
    (folder / "key").chmod(0o644)
    folder.chmod(0o755)
    seen = here(*INSTANCES)
    assert [found["command"] for found in seen.of("instances.folders")] == [
        f"chmod 700 {folder}",
        f"chmod 600 {folder / 'key'}",
    ]
    assert "secret-key" not in seen.text


def test_a_folder_that_others_may_write_to_is_named(here: Doctor, instances: Instances) -> None:
    instances.record("ended", dead("ended"), stopped_at=2.0)
    folder = instances.records.folder
    folder.chmod(0o777)
    found = here(*INSTANCES).bad("instances.folders")
    assert (found["status"], found["code"]) == ("fail", "permissions")
    assert str(folder) in found["seen"]
    assert found["command"] == f"chmod 700 {folder}"


def test_sockets_of_a_dead_instance_are_leftovers(here: Doctor, instances: Instances) -> None:
    record = instances.record("dead", dead("dead"))
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(record.log.parent / "tmp" / "s"))
    found = here(*INSTANCES).bad("instances.leftovers")
    assert found["status"] == "warn"
    assert "1 temporary file left by dead" in found["seen"]


def test_a_log_of_gigabytes(here: Doctor, instances: Instances) -> None:
    record = instances.record("loud", dead("loud"), stopped_at=2.0)
    os.truncate(record.log, 2 * 2**30)
    found = here(*INSTANCES).bad("instances.logs")
    assert "2.0 GiB" in found["seen"]
    assert found["command"] == f"truncate -s 0 {record.log}"


def test_a_context_shorter_than_planned(here: Doctor, mscli: Mscli, instances: Instances) -> None:
    assert mscli("up", "rehearsal", "--json").code == 0
    record = instances.records.get("rehearsal")
    assert record is not None
    instances.records.save(replace(record, plan=replace(record.plan, context=32768)))
    found = here(*INSTANCES).bad("instances.context")
    assert (found["status"], found["code"]) == ("warn", "context_truncated")
    assert "4,096" in found["seen"]
    assert "32,768" in found["seen"]
