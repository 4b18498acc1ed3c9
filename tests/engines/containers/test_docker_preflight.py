"""What keeps Docker from running the container is found out before the weights are fetched, each with its cause."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.containers.container_home import IMAGE, StandinDocker, write_profile
from support.run_mscli import Mscli, Ran

from mscli.diagnosis.causes import Cause
from mscli.diagnosis.diagnose import client_failure, start_failure
from mscli.engines.containers.client import find_client
from mscli.engines.containers.run import probe_engine, remote
from mscli.engines.vllm.docker import VllmDocker

Machine = Callable[..., dict[str, str]]
Up = Callable[..., Ran]
ON_GPUS = ("small-bf16", "--container")

OCI = (
    "docker: Error response from daemon: failed to create task for container: failed to create shim task: OCI runtime "
    "create failed: runc create failed: unable to start container process: error during container init: error running "
    "prestart hook #0: exit status 1, stdout: , stderr: Auto-detected mode as 'legacy'\n"
)
GPU_FAULTS = {
    "no runtime": (
        'docker: Error response from daemon: could not select device driver "" with capabilities: [[gpu]].\n',
        "docker_gpu",
    ),
    "unknown runtime": (
        "docker: Error response from daemon: unknown or invalid runtime name: nvidia.\n",
        "docker_gpu",
    ),
    "stale CDI": (
        "docker: Error response from daemon: CDI device injection failed: unresolvable CDI devices "
        "nvidia.com/gpu=GPU-a\n",
        "cdi",
    ),
    "CDI of an older driver": (
        "docker: Error response from daemon: failed to create task for container: failed to create shim task: OCI "
        "runtime create failed: runc create failed: unable to start container process: error during container init: "
        'error mounting "/usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15" to rootfs: no such file or directory\n',
        "cdi",
    ),
    "CDI device that is gone": (
        "docker: Error response from daemon: could not inject CDI devices: failed to inject devices: failed to stat "
        'CDI host device "/dev/nvidia-uvm": no such file or directory\n',
        "cdi",
    ),
    "CDI device of no specification": (
        "Error: stat nvidia.com/gpu=all: no such file or directory\n",
        "cdi",
    ),
    "no GPU by CDI": (
        "docker: Error response from daemon: failed to discover GPU vendor from CDI: no known GPU vendor found\n",
        "docker_gpu",
    ),
    "Docker without --gpus": ("unknown flag: --gpus\nSee 'docker run --help'.\n", "docker_gpu"),
    "GPU not for this user": ("Failed to initialize NVML: Insufficient Permissions\n", "docker_gpu"),
    "library missing": (
        f"{OCI}nvidia-container-cli: initialization error: load library failed: libnvidia-ml.so.1: cannot open shared "
        "object file: no such file or directory: unknown\n",
        "nvml_not_found",
    ),
    "driver not loaded": (
        f"{OCI}nvidia-container-cli: initialization error: nvml error: driver not loaded: unknown\n",
        "no_driver",
    ),
    "driver mismatch": (
        f"{OCI}nvidia-container-cli: initialization error: nvml error: driver/library version mismatch: unknown\n",
        "nvml_mismatch",
    ),
    "driver too old": (
        f"{OCI}nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.8, please update your driver "
        "to a newer version, or use an earlier cuda container: unknown\n",
        "driver_too_old",
    ),
    "unknown GPU": (
        f"{OCI}nvidia-container-cli: device error: GPU-a: unknown device: unknown\n",
        "visible_devices",
    ),
    "WSL with a Linux driver": (
        f"{OCI}nvidia-container-cli: mount error: file creation failed: /var/lib/docker/overlay2/x/merged/usr/lib/"
        "x86_64-linux-gnu/libnvidia-ml.so.1: file exists: unknown\n",
        "wsl",
    ),
    "WSL without a GPU": (
        f"{OCI}nvidia-container-cli: initialization error: WSL environment detected but no adapters were found: "
        "unknown\n",
        "wsl",
    ),
    "another fault of the toolkit": (
        f"{OCI}nvidia-container-cli: ldcache error: process /sbin/ldconfig failed with error code: 127: unknown\n",
        "docker_gpu",
    ),
    "GPU taken away": ("Failed to initialize NVML: Unknown Error\n", "container_gpu_lost"),
}
START_FAULTS = {
    "docker: failed to create the container ID file: open /home/u/.local/state/mscli/instances/x/tmp/container: "
    "permission denied\n": "permissions",
    'docker: Error response from daemon: invalid mount config for type "bind": bind source path does not exist: /w\n': (
        "model_not_found"
    ),
    'docker: Error response from daemon: Conflict. The container name "/mscli-x-0a1b2c" is already in use by container '
    '"212b853c004d". You have to remove (or rename) that container to be able to reuse that name.\n': "unknown",
    "docker: Error response from daemon: driver failed programming external connectivity on endpoint x: Bind for "
    "127.0.0.1:8124 failed: port is already allocated\n": "port",
    "docker: Error response from daemon: error while creating mount source path '/mnt/w': mkdir /mnt/w: read-only file "
    "system\n": "permissions",
    "docker: Error response from daemon: unable to find user vllm: no matching entries in passwd file\n": (
        "container_user"
    ),
    'time="2026-11-26T16:00:00Z" level=error msg="error waiting for container: unexpected EOF"\n': "engine_missing",
    "docker: Error response from daemon: failed to create shim task: OCI runtime create failed: runc create failed: "
    'unable to start container process: exec: "vllm": executable file not found in $PATH: unknown\n': "build",
    'Error: short-name "vllm/vllm-openai:v0.32.0" did not resolve to an alias and no unqualified-search registries are '
    'defined in "/etc/containers/registries.conf"\n': "engine_missing",
    "Error: setting up CDI devices: unresolvable CDI devices nvidia.com/gpu=GPU-a\n": "cdi",
}
DAEMON_FAULTS = {
    "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\n": (
        "engine_missing",
        "systemctl start docker",
    ),
    "failed to connect to the docker API at unix:///var/run/docker.sock; check if the path is correct and if the "
    "daemon is running: dial unix /var/run/docker.sock: connect: no such file or directory\n": (
        "engine_missing",
        "systemctl start docker",
    ),
    "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: Get "
    '"http://%2Fvar%2Frun%2Fdocker.sock/v1.50/info": dial unix /var/run/docker.sock: connect: permission denied\n': (
        "docker_permission",
        "usermod -aG docker",
    ),
}


@pytest.fixture
def on_gpus(mscli: Mscli, container_env: dict[str, str], machine: Machine, docker: StandinDocker) -> Callable[..., Ran]:
    """`mscli up` of the profile with images on two RTX 5090, with no weights and no way to get them."""
    docker.flag("nvidia")

    def start(*args: str) -> Ran:
        return mscli("up", *ON_GPUS, "--offline", "--json", *args, env=machine("rtx5090-x2"))

    return start


@pytest.mark.parametrize("name", GPU_FAULTS)
def test_what_docker_says_of_gpus_has_its_cause_and_a_remedy(name: str) -> None:
    said, cause = GPU_FAULTS[name]
    found = client_failure(said)
    assert found is not None
    assert found.code == cause
    assert found.summary
    assert found.remedy
    assert found.evidence


@pytest.mark.parametrize("said", START_FAULTS)
def test_what_a_client_says_of_a_start_has_its_cause(said: str) -> None:
    found = start_failure(f"INFO an earlier line\n{said}", "vllm-docker", 125)
    assert found.code == START_FAULTS[said]
    assert found.remedy


def test_a_container_that_was_killed_is_told_from_one_that_was_not_started() -> None:
    assert start_failure("(APIServer pid=1) INFO loading\n", "vllm-docker", 137).code == "host_ram"


@pytest.mark.parametrize("name", ["no runtime", "driver too old"])
def test_a_gpu_that_docker_cannot_give_is_named_before_weights(
    name: str, on_gpus: Callable[..., Ran], docker: StandinDocker
) -> None:
    said, cause = GPU_FAULTS[name]
    docker.has()
    docker.goes_wrong("gpus", said)
    error = on_gpus().error
    assert (error["code"], error["details"]["cause"]) == ("engine_unsupported", cause)
    assert error["hint"]
    assert error["details"]["evidence"]


def test_gpus_go_by_uuid_and_what_passes_is_stopped_by_the_weights_alone(
    on_gpus: Callable[..., Ran], docker: StandinDocker
) -> None:
    docker.has()
    error = on_gpus().error
    assert (error["code"], error["details"]["cause"]) == ("weights_missing", "offline")
    probe = docker.calls("run")[0]
    given = probe[probe.index("--gpus") + 1]
    assert given.startswith('"device=GPU-')
    assert given.count("GPU-") == 2
    assert probe[probe.index("--entrypoint") + 1] == "nvidia-smi"


@pytest.mark.parametrize("said", DAEMON_FAULTS)
def test_a_daemon_that_does_not_answer_is_named_with_its_remedy(
    said: str, docker: StandinDocker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in docker.env.items():
        monkeypatch.setenv(name, value)
    docker.goes_wrong("info", said, 1)
    engine = VllmDocker()
    cause, remedy = DAEMON_FAULTS[said]
    found = probe_engine(find_client())
    assert isinstance(found, Cause)
    assert found.code == cause
    assert remedy in found.remedy
    assert remedy in (engine.health(engine.locate())[1] or "")


def test_a_daemon_that_does_not_answer_ends_the_start(up: Up, docker: StandinDocker) -> None:
    docker.goes_wrong("info", next(iter(DAEMON_FAULTS)), 1)
    error = up("--json").error
    assert (error["code"], error["details"]["cause"]) == ("engine_missing", "engine_missing")


def test_docker_without_the_toolkit_is_named_before_the_image_is_fetched(
    mscli: Mscli, container_env: dict[str, str], machine: Machine, docker: StandinDocker
) -> None:
    error = mscli("up", *ON_GPUS, "--json", env=machine("rtx5090-x2")).error
    assert error["details"]["cause"] == "docker_gpu"
    assert docker.calls("pull") == docker.calls("run") == []


def test_a_flag_that_the_images_vllm_refuses_is_named_before_weights(
    mscli: Mscli, container_env: dict[str, str], home: Path, docker: StandinDocker
) -> None:
    docker.has()
    docker.goes_wrong("flags", "usage: vllm serve\nvllm: error: unrecognized arguments: --no-such-flag\n", 2)
    write_profile(home, options="{no-such-flag: true}")
    error = mscli("up", "tiny", "--offline", "--json").error
    assert (error["code"], error["details"]["cause"]) == ("engine_unsupported", "cli_flags")


def test_no_client_on_path_is_said_with_the_way_to_get_one(mscli: Mscli, user_env: dict[str, str], home: Path) -> None:
    write_profile(home)
    error = mscli("up", "tiny", "--json", env={"MSCLI_CONTAINER_ENGINE": "/nowhere/docker"}).error
    assert (error["code"], error["details"]["cause"]) == ("engine_missing", "engine_missing")
    assert "MSCLI_CONTAINER_ENGINE" in error["message"]


def test_an_engine_on_another_machine_is_refused(up: Up, docker: StandinDocker) -> None:
    docker.has()
    error = up("--json", env={"DOCKER_HOST": "ssh://root@elsewhere"}).error
    assert error["code"] == "engine_unsupported"
    assert "elsewhere" in error["message"]


def test_a_context_that_was_switched_to_is_remembered(up: Up, docker: StandinDocker, home: Path) -> None:
    docker.has()
    (docker.place / "context").write_text("mine")
    assert up("--json", "--no-wait").data["plan"]["command"]["env"] == {"DOCKER_CONTEXT": "mine"}
    kept = json.loads((home / "state" / "instances" / "tiny" / "record.json").read_text())
    assert kept["contained"]["env"] == {"DOCKER_CONTEXT": "mine"}


def test_a_context_on_another_machine_is_seen(docker: StandinDocker, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in docker.env.items():
        monkeypatch.setenv(name, value)
    assert remote(find_client()) is None
    (docker.place / "context").write_text("far")
    assert remote(find_client()) == "ssh://elsewhere"


def test_an_image_that_is_absent_is_fetched_with_progress_in_bytes(up: Up, docker: StandinDocker) -> None:
    ran = up("--events")
    events = [json.loads(line) for line in ran.out.splitlines()]
    seen = [event for event in events if event.get("event") == "progress" and event["file"] == IMAGE]
    assert ran.code == 0, ran.out
    assert (seen[-1]["stage"], seen[-1]["total_bytes"]) == ("done", 1_300_000_000)
    assert docker.calls("pull") == [["pull", IMAGE]]


def test_an_absent_image_is_a_clear_error_offline(up: Up, docker: StandinDocker) -> None:
    error = up("--json", "--offline").error
    assert (error["code"], error["details"]["cause"]) == ("weights_missing", "offline")
    assert "docker load" in error["hint"]
    assert docker.calls("pull") == []


def test_a_disk_that_cannot_take_the_image_is_named_before_the_first_byte(up: Up, docker: StandinDocker) -> None:
    (docker.place / "manifest.json").write_text(json.dumps({"layers": [{"size": 10**15}]}))
    error = up("--json").error
    assert (error["code"], error["details"]["cause"]) == ("disk_full", "disk_full")
    assert docker.calls("pull") == []


PULL_FAULTS = {
    "Error response from daemon: manifest for vllm/vllm-openai:v0.32.0 not found: manifest unknown\n": (
        "download_failed",
        "engine_missing",
    ),
    'Error response from daemon: Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io: no '
    "such host\n": ("download_failed", "network_proxy"),
    "failed to register layer: write /usr/lib/libcublasLt.so.13: no space left on device\n": ("disk_full", "disk_full"),
}


@pytest.mark.parametrize("said", PULL_FAULTS)
def test_what_docker_says_of_a_pull_has_its_cause(said: str) -> None:
    found = client_failure(said)
    assert found is not None
    assert found.code == PULL_FAULTS[said][1]


def test_a_pull_that_fails_says_why(up: Up, docker: StandinDocker) -> None:
    said, (code, cause) = list(PULL_FAULTS.items())[-1]
    docker.goes_wrong("pull", said, 1)
    error = up("--json").error
    assert (error["code"], error["details"]["cause"]) == (code, cause)
    assert "docker image prune" in error["hint"]


def test_a_pull_that_is_interrupted_ends_and_goes_on_next_time(
    up: Up, docker: StandinDocker, container_env: dict[str, str]
) -> None:
    stuck = docker.flag("stuck")
    write_profile(Path(container_env["MSCLI_HOME"]))
    child = subprocess.Popen(
        [sys.executable, "-m", "mscli", "up", "tiny", "--events"],
        env=container_env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    for line in child.stdout:
        event = json.loads(line)
        if event.get("event") == "progress" and event["done_bytes"] > 50_000_000:
            break
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=20)
    assert child.returncode == 130, out
    assert docker.calls("run") == []
    stuck.unlink()
    assert up("--json").code == 0
    assert len(docker.calls("pull")) == 2


@pytest.mark.parametrize(
    ("flag", "env"),
    [
        ("--gateway", {}),
        ("--supervise", {}),
        ("--plain", {"DOCKER_HOST": "ssh://root@elsewhere"}),
        ("--offline", {"MSCLI_CONTAINER_ENGINE": "/nowhere/docker"}),
        ("--offline", {}),
    ],
    ids=["gateway", "supervise", "another machine", "no client", "no image"],
)
def test_a_dry_run_refuses_what_the_start_refuses(
    up: Up, docker: StandinDocker, flag: str, env: dict[str, str]
) -> None:
    refused, shown = up(flag, "--json", env=env), up(flag, "--json", "--dry-run", env=env)

    assert shown.error == refused.error
    assert docker.calls("pull") == docker.calls("run") == []


def test_in_front_of_a_container_stands_no_gateway_for_agents_either(up: Up) -> None:
    notes = up("--for", "agents", "--json", "--dry-run").data["notes"]
    assert not any("gateway listens" in note for note in notes)


def test_a_dry_run_refuses_gpus_that_docker_cannot_give(
    mscli: Mscli, container_env: dict[str, str], machine: Machine
) -> None:
    error = mscli("up", *ON_GPUS, "--json", "--dry-run", env=machine("rtx5090-x2")).error

    assert error["details"]["cause"] == "docker_gpu"
