"""What docker, podman and the NVIDIA container toolkit say when they cannot run a container, as causes."""

from __future__ import annotations

from mscli.engines.engine import Cause
from mscli.engines.sign import Sign, first

_TOOLKIT = (
    "Install the NVIDIA Container Toolkit, then: sudo nvidia-ctk runtime configure --runtime=docker && "
    "sudo systemctl restart docker"
)
_CDI = (
    "Write the specification anew, as after every update of the driver: "
    "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml (older toolkits name GPUs by number alone: add "
    "--device-name-strategy=uuid)"
)
_SOCKET = (
    "sudo usermod -aG docker $USER, then log in anew (whoever is in that group can become root). "
    "Or use rootless Docker or Podman: export MSCLI_CONTAINER_ENGINE=podman"
)
_DRIVER = "Check with `nvidia-smi` on the host: without the driver there, no container sees a GPU."

SIGNS = (
    Sign(
        "docker_permission",
        r"permission denied.{0,120}(?:docker|podman)|(?:docker|podman)\.sock\S*.{0,80}permission denied",
        "this user may not speak to Docker",
        _SOCKET,
    ),
    Sign(
        "engine_missing",
        r"Cannot connect to the Docker daemon|[Uu]nable to connect to Podman|error during connect",
        "the Docker daemon does not answer",
        "sudo systemctl start docker. Or export DOCKER_HOST, where it listens elsewhere; or use Podman, which needs no "
        "daemon: export MSCLI_CONTAINER_ENGINE=podman",
    ),
    Sign(
        "engine_missing",
        r"error waiting for container",
        "the Docker daemon went away under the container",
        "See what became of it: journalctl -u docker. Then start it, and mscli again.",
    ),
    Sign(
        "nvml_mismatch",
        r"driver/library version mismatch",
        "the NVIDIA driver was updated while the old one stays loaded",
        "Reboot, or unload and load the kernel modules.",
    ),
    Sign(
        "driver_too_old",
        r"unsatisfied condition: (?P<what>(?:cuda|driver)\s?>=\s?[\d.]+)",
        "the image needs a driver with {what}",
        "Update the NVIDIA driver, or name an image that is built for an older CUDA; `mscli gpus` shows the driver's.",
    ),
    Sign(
        "wsl",
        r"nvidia\S*\.so\S*: file exists",
        "the image or the distribution brings its own NVIDIA driver libraries, which hide the projected ones",
        "Remove the Linux driver's packages there: in WSL only the Windows driver may be installed.",
    ),
    Sign(
        "no_driver",
        r"nvml error: driver not loaded|no NVIDIA GPU device is present|/proc/driver/nvidia\S*: no such file",
        "the NVIDIA driver is not loaded",
        _DRIVER,
    ),
    Sign(
        "nvml_not_found",
        r"load library failed: lib\S+|libnvidia-ml\.so\S*: cannot open shared object|couldn't find libnvidia-ml",
        "the container toolkit does not find the driver's libraries on the host",
        f"{_DRIVER} In WSL: Windows 10 21H2 or later, and Windows' own driver.",
    ),
    Sign(
        "visible_devices",
        r"device error: (?P<what>\S+): unknown device|unknown device (?P<other>GPU-\S+)",
        "the container toolkit knows no GPU {what}{other}",
        "`mscli gpus` shows those that are there.",
    ),
    Sign(
        "cdi",
        r"unresolvable CDI devices? (?P<what>.*)|failed to inject CDI|(?:parse|load) CDI spec|device driver \"cdi\"",
        "the CDI specification does not name this GPU {what}",
        _CDI,
    ),
    Sign(
        "cdi",
        r"error (?:stat'ing|mounting) \S*(?:nvidia|libcuda)\S*|lstat \S*(?:nvidia|libcuda)\S*: no such file",
        "the CDI specification names files of a driver that is no longer there",
        _CDI,
    ),
    Sign(
        "container_gpu_lost",
        r"Failed to initialize NVML: Unknown Error",
        "the container is refused its GPU",
        "Let the toolkit use CDI, or Docker the cgroup driver cgroupfs, and start it anew.",
    ),
    Sign(
        "docker_gpu",
        r"could not select device driver|[Uu]nknown(?: or invalid)? runtime (?:specified|name):? ?\"?nvidia"
        r"|nvidia-container-(?:runtime|toolkit|cli)\S*: (?:executable file )?not found",
        "Docker cannot give a container a GPU: it has no NVIDIA runtime",
        f"{_TOOLKIT}. Without an NVIDIA GPU in this machine that changes nothing.",
    ),
    Sign(
        "docker_gpu",
        r"nvidia-container-cli: (?P<what>.{1,120})",
        "the NVIDIA container toolkit failed: {what}",
        f"Try `sudo nvidia-container-cli info`. {_TOOLKIT}",
    ),
    Sign(
        "docker_gpu",
        r"\"?nvidia-smi\"?`?: executable file (?:`nvidia-smi` )?not found",
        "the container has no nvidia-smi: the NVIDIA runtime gave it no driver",
        _TOOLKIT,
    ),
    Sign(
        "port",
        r"port is already allocated|bind: address already in use|cannot listen on the TCP port",
        "the port is taken",
        "Take another one with --port, or leave --port away and a free one is chosen.",
    ),
    Sign(
        "disk_full",
        r"no space left on device",
        "the disk where the container engine keeps images is full",
        "Free some: docker system df shows what lies there, docker image prune removes what nothing uses.",
    ),
    Sign(
        "engine_missing",
        r"No such image|image not known|(?:manifest|tag) unknown|manifest for \S+ not found|pull access denied"
        r"|repository does not exist|requested access to the resource is denied|unauthorized",
        "there is no such image, or its registry wants a login",
        "Check the profile's `image`; `docker login` for a private registry.",
    ),
    Sign(
        "engine_missing",
        r"short-name \S+ did not resolve",
        "Podman does not guess an image's registry",
        "Write it in the profile's `image`: docker.io/vllm/vllm-openai:...",
    ),
    Sign(
        "network_proxy",
        r"dial tcp|no such host|TLS handshake|x509: |i/o timeout|proxyconnect|[Cc]onnection (?:refused|reset)"
        r"|context deadline exceeded|toomanyrequests|unexpected EOF",
        "the image's registry cannot be reached",
        "The daemon, not this shell, needs the proxy: see its HTTPS_PROXY. Or bring the image by disk: docker save on "
        "another machine, docker load here.",
    ),
    Sign(
        "model_not_found",
        r"bind source path does not exist: (?P<what>\S+)|statfs (?P<other>\S+): no such file",
        "the weights are not at {what}{other} for the container engine",
        "Where the engine runs in a virtual machine, share that folder with it.",
    ),
    Sign(
        "permissions",
        r"failed to create the container ID file|container ID file.*(?:denied|read-only)",
        "the client may not write into the instance's folder",
        "Docker from a snap sees no hidden folders: let MSCLI_HOME name one that is not hidden, or install Docker "
        "from its own package.",
    ),
    Sign(
        "build",
        r"exec: \"?vllm\"?: executable file not found",
        "the image holds no `vllm` program",
        "Name an image of vllm/vllm-openai in the profile.",
    ),
    Sign(
        "unknown",
        r"[Tt]he container name \"?/?(?P<what>[^\s\"]+)\"? is already in use",
        "a container {what} is there already, which mscli does not know of",
        "Remove it: docker rm -f {what}",
    ),
)


def container_cause(said: str) -> Cause | None:
    """The cause that the client's words show; None where they show none."""
    lines = said.splitlines()
    seen = first(SIGNS, lines)
    return Cause(seen.sign.code, seen.summary.strip(), seen.remedy, (lines[seen.line].strip(),)) if seen else None
