"""What the doctor finds about containers: clients that answer as the real ones do, and a / with CDI specifications."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.containers.docker_program import ADVICE, NVIDIA, Answer, Programs
from support.machines.described_machines import inventory_of
from support.run_mscli import Mscli

from mscli.doctor.checks.check import Finding

Visit = Callable[..., dict[str, list[Finding]]]
Machine = Callable[..., dict[str, str]]

SOCKET = (
    "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: Get "
    '"http://%2Fvar%2Frun%2Fdocker.sock/v1.50/info": dial unix /var/run/docker.sock: connect: permission denied'
)
STOPPED = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
HOOK = (
    "docker: Error response from daemon: failed to create task for container: failed to create shim task: OCI runtime "
    "create failed: runc create failed: unable to start container process: error during container init: error running "
    "prestart hook #0: exit status 1, stdout: , stderr: Auto-detected mode as 'legacy'\n"
)


@pytest.fixture
def listed(machine: Machine) -> str:
    """What nvidia-smi -L says of both GPUs of the machine."""
    gpus = inventory_of("rtx4090-x2", machine).gpus
    return "".join(f"GPU {gpu.index}: {gpu.name} (UUID: {gpu.uuid})\n" for gpu in gpus)


def healthy(programs: Programs, listed: str) -> None:
    programs.docker({"Runtimes": {"runc": {"path": "runc"}, **NVIDIA}}, run=Answer(listed))
    programs.program("nvidia-ctk", "echo 'NVIDIA Container Toolkit CLI version 1.17.8'")
    programs.file("/usr/bin/nvidia-container-runtime")
    programs.file("/etc/docker/daemon.json", '{"runtimes": {"nvidia": {"path": "nvidia-container-runtime"}}}')


def test_a_healthy_docker_gives_no_failure(programs: Programs, visit: Visit, listed: str) -> None:
    healthy(programs, listed)
    found = visit()
    assert {each.status for findings in found.values() for each in findings} <= {"ok", "warn", "skipped"}, found
    assert found["gpus"][0].seen.endswith("sees all GPUs (2)")
    assert [each.code for findings in found.values() for each in findings if each.status == "warn"] in (
        [],
        ["disk_full"],  # this machine's own disk
    )


def test_no_client_is_no_failure(visit: Visit) -> None:
    assert {each.status for findings in visit().values() for each in findings} == {"skipped"}


def test_no_client_is_a_failure_for_a_profile_that_runs_in_a_container(visit: Visit) -> None:
    found = visit(profile="small-bf16")["engine"][0]
    assert (found.status, found.code) == ("fail", "engine_missing")


def test_a_client_that_is_named_and_is_not_there_is_said_to_be_missing(programs: Programs, visit: Visit) -> None:
    programs.docker()
    found = visit(profile="small-bf16", MSCLI_CONTAINER_ENGINE="/nowhere/docker")["engine"][0]
    assert (found.status, found.code) == ("fail", "engine_missing")
    assert "MSCLI_CONTAINER_ENGINE is /nowhere/docker" in found.seen


def test_a_podman_that_says_nothing_is_not_taken_for_docker(programs: Programs, visit: Visit) -> None:
    programs.docker(Answer(err="Error: could not open /srv/libpod: permission denied", status=125), "podman")
    found = visit(asked=True)["engine"][0]
    assert found.seen.startswith("podman installed")
    assert found.command is None


def test_a_profile_in_a_container_has_its_client_checked_and_its_engine(
    mscli: Mscli, programs: Programs, machine: Machine
) -> None:
    env = {**machine("rtx5090"), "PATH": str(programs.bin), "MSCLI_CONTAINER_ENGINE": "/nowhere/docker"}
    told = mscli("doctor", "small-bf16", "--container", "--json", env=env)
    found = {each["id"]: each for each in told.data["findings"]}
    assert [found[name]["code"] for name in ("profile.engine", "containers.engine")] == ["engine_missing"] * 2


def test_a_socket_that_the_user_may_not_use_is_named_with_the_group(programs: Programs, visit: Visit) -> None:
    programs.silent(SOCKET)
    found = visit()["engine"][0]
    assert (found.status, found.code) == ("fail", "docker_permission")
    assert found.command == "sudo usermod -aG docker $USER"


def test_a_daemon_that_does_not_run_is_named(programs: Programs, visit: Visit) -> None:
    programs.silent(STOPPED)
    found = visit()["engine"][0]
    assert (found.status, found.code) == ("warn", "engine_missing")
    assert found.command == "sudo systemctl start docker"
    assert visit(profile="small-bf16")["engine"][0].status == "fail"


def test_a_docker_host_where_nothing_listens_is_shown(programs: Programs, visit: Visit) -> None:
    programs.silent("Cannot connect to the Docker daemon at tcp://10.0.0.9:2375. Is the docker daemon running?")
    found = visit(DOCKER_HOST="tcp://10.0.0.9:2375")["engine"][0]
    assert "DOCKER_HOST=tcp://10.0.0.9:2375" in found.seen


def test_a_daemon_of_another_machine_is_said_to_be_one(programs: Programs, visit: Visit) -> None:
    programs.docker()
    found = visit(DOCKER_HOST="ssh://lasse@other")
    assert found["engine"][0].status == "warn"
    assert "ssh://lasse@other" in found["engine"][0].seen
    assert found["gpus"][0].status == "skipped"


def test_a_context_of_another_machine_is_said_to_be_one(programs: Programs, visit: Visit) -> None:
    programs.docker({"ClientInfo": {"Context": "far"}}, context=Answer("tcp://10.0.0.9:2376\n"))
    assert "tcp://10.0.0.9:2376" in visit()["engine"][0].seen


def test_a_daemon_that_hangs_is_named_in_time(programs: Programs, visit: Visit) -> None:
    programs.docker(Answer("{}", seconds=30))
    found = visit()["engine"][0]
    assert "did not answer within 2 s" in found.evidence[0]


def test_a_toolkit_that_is_not_installed_is_named(programs: Programs, visit: Visit) -> None:
    programs.docker(run=Answer(err="docker: Error response from daemon: boom", status=125))
    found = visit()["runtime"][0]
    assert (found.status, found.code) == ("fail", "docker_gpu")
    assert "not installed" in found.seen


def test_a_toolkit_that_docker_was_not_told_of_is_named(programs: Programs, visit: Visit) -> None:
    programs.docker()
    programs.program("nvidia-ctk", "echo 'NVIDIA Container Toolkit CLI version 1.17.8'")
    found = visit()["runtime"][0]
    assert (found.status, found.code) == ("fail", "docker_gpu")
    assert "not registered in Docker" in found.seen


def test_a_docker_that_was_not_restarted_after_the_registration_is_named(programs: Programs, visit: Visit) -> None:
    programs.docker()
    programs.file("/etc/docker/daemon.json", '{"runtimes": {"nvidia": {"path": "nvidia-container-runtime"}}}')
    found = visit()["runtime"][0]
    assert (found.code, found.command) == ("docker_gpu", "sudo systemctl restart docker")


def test_a_registered_runtime_whose_program_is_gone_is_named(programs: Programs, visit: Visit) -> None:
    programs.docker({"Runtimes": NVIDIA})
    found = visit()["runtime"][0]
    assert (found.status, found.code) == ("fail", "docker_gpu")
    assert "not found" in found.seen


def test_a_configuration_that_is_no_json_is_named(programs: Programs, visit: Visit) -> None:
    programs.silent(STOPPED)
    programs.file("/etc/docker/daemon.json", '{"runtimes": {"nvidia": {}},}')
    found = visit()["runtime"][0]
    assert (found.status, found.code) == ("fail", "docker_gpu")
    assert "not valid JSON" in found.seen


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ('docker: Error response from daemon: could not select device driver "" with capabilities: [[gpu]].',
         "docker_gpu"),
        ("docker: Error response from daemon: unknown or invalid runtime name: nvidia.", "docker_gpu"),
        (f"{HOOK}nvidia-container-cli: initialization error: driver rpc error: timed out: unknown.", "docker_gpu"),
        (f"{HOOK}nvidia-container-cli: initialization error: nvml error: driver not loaded: unknown.", "no_driver"),
        (f"{HOOK}nvidia-container-cli: initialization error: nvml error: driver/library version mismatch: unknown.",
         "nvml_mismatch"),
        (f"{HOOK}nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.8, please update your driver "
         "to a newer version, or use an earlier cuda container: unknown.", "driver_too_old"),
        ("Error: setting up CDI devices: unresolvable CDI devices nvidia.com/gpu=all", "cdi"),
        ("docker: Error response from daemon: CDI device injection failed: unresolvable CDI devices "
         "nvidia.com/gpu=all.", "cdi"),
        ("Failed to initialize NVML: Unknown Error", "container_gpu_lost"),
    ],
)  # fmt: skip
def test_a_container_that_does_not_start_is_put_down_to_its_cause(
    programs: Programs, visit: Visit, listed: str, said: str, code: str
) -> None:
    healthy(programs, listed)
    programs.docker({"Runtimes": NVIDIA}, run=Answer(err=f"{said}\n\n{ADVICE}", status=125))
    found = visit()["gpus"][0]
    assert found.status == "fail"
    assert found.code == code
    assert ADVICE not in found.seen


def test_a_container_that_sees_fewer_gpus_than_the_host_is_named(programs: Programs, visit: Visit, listed: str) -> None:
    healthy(programs, listed)
    programs.docker({"Runtimes": NVIDIA}, run=Answer(listed.splitlines()[0]))
    found = visit()["gpus"][0]
    assert (found.status, found.code) == ("fail", "docker_gpu")
    assert "sees 1 of 2 GPUs" in found.seen


def test_a_container_is_tried_with_an_image_that_is_here_and_nothing_is_pulled(
    programs: Programs, visit: Visit, listed: str
) -> None:
    healthy(programs, listed)
    visit()
    (run,) = [call for call in programs.calls if call.startswith("run")]
    assert "--pull never" in run
    assert "--entrypoint nvidia-smi nvidia/cuda:12.4.1-base-ubuntu22.04 -L" in run
    assert not [call for call in programs.calls if call.startswith("pull")]


def test_without_an_image_no_container_is_tried(programs: Programs, visit: Visit) -> None:
    programs.docker(image=Answer("alpine:3.20\n"))
    assert visit()["gpus"][0].status == "skipped"
    assert not [call for call in programs.calls if call.startswith("run")]


def test_a_container_that_takes_long_is_left_alone_and_cleaned_up(
    programs: Programs, visit: Visit, listed: str
) -> None:
    healthy(programs, listed)
    programs.docker({"Runtimes": NVIDIA}, run=Answer(listed, seconds=20), rm=Answer())
    found = visit()["gpus"][0]
    assert found.status == "skipped"
    assert "--only containers" in found.seen
    (run,) = [call for call in programs.calls if call.startswith("run")]
    name = run.split("--name ")[1].split()[0]
    assert f"rm -f {name}" in programs.calls


def test_a_slow_container_is_waited_for_when_containers_are_asked_about(
    programs: Programs, visit: Visit, listed: str
) -> None:
    healthy(programs, listed)
    programs.docker({"Runtimes": NVIDIA}, run=Answer(listed, seconds=2.4))
    assert visit(asked=True)["gpus"][0].status == "ok"


def test_an_own_container_that_lost_its_gpu_is_named(programs: Programs, visit: Visit, listed: str) -> None:
    healthy(programs, listed)
    lost = Answer("Failed to initialize NVML: Unknown Error\n", status=255)
    programs.docker({"Runtimes": NVIDIA}, run=Answer(listed), ps=Answer("4f1c2d small-bf16-docker\n"), exec=lost)
    found = visit()["own"][0]
    assert (found.status, found.code) == ("fail", "container_gpu_lost")
    assert found.command == "mscli restart small-bf16-docker"


def test_an_own_container_that_has_its_gpu_is_well(programs: Programs, visit: Visit, listed: str) -> None:
    healthy(programs, listed)
    told = {"run": Answer(listed), "ps": Answer("4f1c2d small\n"), "exec": Answer(listed)}
    programs.docker({"Runtimes": NVIDIA}, **told)
    assert visit()["own"][0].status == "ok"


def test_control_groups_of_systemd_are_warned_about(programs: Programs, visit: Visit, listed: str) -> None:
    healthy(programs, listed)
    programs.docker({"Runtimes": NVIDIA, "CgroupDriver": "systemd"}, run=Answer(listed))
    found = visit()["lasting"][0]
    assert (found.status, found.code) == ("warn", "container_gpu_lost")
    programs.file("/dev/char/195:0")
    assert visit()["lasting"][0].status == "ok"


def test_a_toolkit_without_control_groups_under_root_is_warned_about(
    programs: Programs, visit: Visit, listed: str
) -> None:
    healthy(programs, listed)
    programs.file("/etc/nvidia-container-runtime/config.toml", "[nvidia-container-cli]\nno-cgroups = true\n")
    found = visit()["lasting"][0]
    assert (found.status, found.code) == ("warn", "container_gpu_lost")


SPEC = """---
cdiVersion: 0.5.0
containerEdits:
  deviceNodes:
  - path: /dev/nvidiactl
  hooks:
  - args: [nvidia-cdi-hook, update-ldcache]
    hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
  mounts:
  - containerPath: /usr/lib/x86_64-linux-gnu/libcuda.so.{driver}
    hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.{driver}
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: "0"
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia1
  name: "1"
kind: nvidia.com/gpu
"""


def specified(programs: Programs, text: str, name: str = "/etc/cdi/nvidia.yaml") -> None:
    """A specification, on a machine with a driver of release 570.124.06 and two GPUs."""
    programs.file(name, text)
    library = "/usr/lib/x86_64-linux-gnu/libcuda.so.570.124.06"
    for there in ("/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia1", "/usr/bin/nvidia-cdi-hook", library):
        programs.file(there)


def test_a_specification_of_the_loaded_driver_is_well(programs: Programs, visit: Visit) -> None:
    programs.docker()
    specified(programs, SPEC.format(driver="570.124.06"))
    assert visit()["cdi"][0].status == "ok"


def test_a_specification_of_another_patch_release_is_stale(programs: Programs, visit: Visit) -> None:
    programs.docker()
    specified(programs, SPEC.format(driver="570.124.04"))
    found = visit()["cdi"][0]
    assert (found.status, found.code) == ("fail", "cdi")
    assert "is for driver 570.124.04 (loaded: 570.124.06)" in found.seen
    assert found.command == "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"


def test_a_specification_that_names_what_is_gone_is_stale(programs: Programs, visit: Visit) -> None:
    programs.docker()
    specified(programs, SPEC.format(driver="570.124.06"))
    (programs.root / "usr/bin/nvidia-cdi-hook").unlink()
    found = visit()["cdi"][0]
    assert (found.status, found.code) == ("fail", "cdi")
    assert found.evidence == ("/usr/bin/nvidia-cdi-hook",)


def test_a_specification_without_the_second_gpu_is_stale(programs: Programs, visit: Visit) -> None:
    programs.docker()
    specified(programs, SPEC.format(driver="570.124.06").replace("/dev/nvidia1", "/dev/nvidia0"))
    assert "names 1 of 2 GPUs" in visit()["cdi"][0].seen


def test_a_stale_specification_behind_a_good_one_is_only_warned_about(programs: Programs, visit: Visit) -> None:
    programs.docker()
    specified(programs, SPEC.format(driver="570.124.04"))
    specified(programs, SPEC.format(driver="570.124.06"), "/var/run/cdi/nvidia.yaml")
    assert [(each.status, each.code) for each in visit()["cdi"]] == [("warn", "cdi")]


def test_a_specification_that_is_cut_off_is_named(programs: Programs, visit: Visit) -> None:
    programs.docker()
    specified(programs, '{"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [', "/etc/cdi/nvidia.json")
    found = visit()["cdi"][0]
    assert (found.status, found.code) == ("fail", "cdi")


def test_podman_without_a_specification_cannot_give_gpus(programs: Programs, visit: Visit) -> None:
    info = '{"host": {"cgroupManager": "systemd", "security": {"rootless": true}}, "store": {"graphRoot": "/srv"}, '
    programs.docker(Answer(info + '"version": {"Version": "4.9.3"}}'), "podman")
    found = visit(asked=True)
    assert found["engine"][0].seen == "podman 4.9.3 answers (rootless)"
    assert (found["cdi"][0].status, found["cdi"][0].code) == ("fail", "cdi")


def test_on_a_machine_without_gpu_docker_is_left_in_peace(programs: Programs, visit: Visit) -> None:
    programs.docker()
    found = visit(on="no-driver")
    assert {each.status for findings in found.values() for each in findings} <= {"ok", "skipped"}


def test_a_container_profile_on_a_machine_without_gpu_is_named(programs: Programs, visit: Visit) -> None:
    programs.docker()
    found = visit(on="no-driver", profile="small-bf16")["runtime"][0]
    assert (found.status, found.code) == ("fail", "docker_gpu")


def test_the_command_tells_it_and_exits_with_5(mscli: Mscli, programs: Programs, machine: Machine) -> None:
    programs.silent(SOCKET)
    told = mscli("doctor", "--only", "containers", "--json", env={**machine("rtx4090"), "PATH": str(programs.bin)})
    assert told.code == 5
    found = {each["id"]: each for each in told.data["findings"]}
    assert found["containers.engine"]["code"] == "docker_permission"
    assert found["containers.engine"]["command"] == "sudo usermod -aG docker $USER"
    assert "crashed" not in {each["status"] for each in told.data["findings"]}


def test_docker_desktop_has_no_gpu_for_its_containers(programs: Programs, visit: Visit) -> None:
    programs.docker({"OperatingSystem": "Docker Desktop"})
    found = visit()["engine"][0]
    assert (found.status, found.code) == ("fail", "docker_gpu")


def test_a_rootless_docker_wants_a_toolkit_without_control_groups(
    programs: Programs, visit: Visit, listed: str
) -> None:
    healthy(programs, listed)
    programs.docker({"Runtimes": NVIDIA, "SecurityOptions": ["name=rootless"]}, run=Answer(listed))
    found = visit()["lasting"][0]
    assert (found.status, found.code) == ("fail", "docker_gpu")
    programs.file("/etc/nvidia-container-runtime/config.toml", "[nvidia-container-cli]\nno-cgroups = true\n")
    assert visit()["lasting"][0].status == "ok"


def test_the_toolkits_hook_alone_may_do_and_is_only_warned_about(programs: Programs, visit: Visit) -> None:
    programs.docker()
    programs.file("/usr/bin/nvidia-container-runtime-hook")
    found = visit()["runtime"][0]
    assert (found.status, found.code) == ("warn", "docker_gpu")


def test_devices_that_docker_found_by_cdi_are_enough(programs: Programs, visit: Visit, listed: str) -> None:
    discovered = [{"Source": "cdi", "ID": "nvidia.com/gpu=all"}]
    programs.docker({"DiscoveredDevices": discovered}, run=Answer(listed))
    found = visit()
    assert found["runtime"][0].status == "ok"
    assert found["gpus"][0].status == "ok"
    assert [call for call in programs.calls if "--device nvidia.com/gpu=all" in call]


@pytest.mark.parametrize(("free", "expected"), [("/proc", ("fail", "disk_full")), ("/", None)])
def test_a_full_disk_where_images_lie_is_named(
    programs: Programs, visit: Visit, free: str, expected: tuple[str, str] | None
) -> None:
    programs.docker({"DockerRootDir": "/images"})
    (programs.root / "images").symlink_to(free)
    found = visit()["disk"][0]
    assert (found.status, found.code) == expected if expected else found.status != "skipped"
