"""What docker, podman and the NVIDIA container toolkit say when they cannot run a container, as causes.

The one table of a client's words, for the start of an engine and for the doctor. Those wordings that show their cause
wherever they stand have names: the doctor's signs of any log, which are weighed and not ordered, take them from here.
"""

from __future__ import annotations

from mscli.diagnosis.signature import Sign, first
from mscli.engines.engine import Cause

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

REFUSED = (
    r"permission denied.{0,80}docker(?: daemon|\.sock| API|-)",
    r"(?:docker|podman)\.sock\S*.{0,80}(?:permission denied|Errno 13|EACCES)",
    r"user .*(?:not in|add\w* .*to) the '?docker'? group",
)
NO_RUNTIME = (
    r"could not select device driver(?!\W+cdi\b)",
    r"(?:unknown|invalid|unknown or invalid) runtime (?:specified|name):? ?\"?nvidia",
    r"nvidia-container-(?:runtime|toolkit|cli)\S*\"?:? (?:executable file )?(?:not found|no such file)",
    r"nvidia-container-(?:toolkit|runtime) (?:is )?(?:not installed|missing)",
)
NO_VENDOR = (r"failed to discover GPU vendor from CDI", r"no known GPU vendor found")
NO_SMI = (r"executable file `?\"?nvidia-smi`?\"? not found", r"nvidia-smi\"?`?: executable file not found")
NO_GPUS_FLAG = (r"unknown flag: --gpus",)
TOOLKIT_FAULTS = (r"unable to load config for runtime docker", r"nvidia-container-runtime did not terminate")
NVML_REFUSED = (r"Failed to initialize NVML: Insufficient Permissions",)
CDI_FAULTS = (
    r"unresolvable CDI devices?",
    r"(?:failed to|cannot|could not|error) .{0,40}\bCDI\b.{0,20}(?:device|spec|registry)",
    r"\bCDI (?:device|spec|registry)\S*.{0,60}(?:not found|invalid|conflict|fail|missing|unresolvable|not exist|stale)",
    r"/(?:etc|run)/cdi\b.{0,80}(?:no such file|not found|invalid|fail)",
    r"no CDI devices? found|no CDI specs?\b",
    r"CDI is not (?:enabled|supported|configured)",
    r"could not select device driver\W+cdi\b",
    r"stat nvidia\.com/gpu=\S+|nvidia\.com/gpu\S* (?:not found|unknown|unresolvable|is invalid)",
    r"does not have a CDI configuration|No CDI configuration",
)
GPU_LOST = (r"NVML: Unknown Error", r"/dev/nvidia\S*:? Operation not permitted")
NO_USER = (r"no matching entries in passwd file", r"unable to find user \S+: no")
NO_ADAPTERS = (r"WSL environment detected but no adapters were found",)
WSL_DRIVER = (r"nvidia-container-cli: initialization error: driver error: failed to process request",)


def _any(*wordings: str) -> str:
    """A pattern for each of the wordings, in letters of any case."""
    return f"(?i:{'|'.join(wordings)})"


SIGNS = (
    Sign(
        "docker_permission",
        rf"permission denied.{{0,120}}(?:docker|podman)|{_any(*REFUSED)}",
        "this user may not speak to Docker",
        _SOCKET,
    ),
    Sign(
        "engine_missing",
        r"Cannot connect to (?:the Docker daemon|Podman)|[Uu]nable to connect to Podman|error during connect"
        r"|failed to connect to the docker API",
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
        r"unsatisfied condition: (?P<what>(?:cuda|driver|brand)\s?[<>=]+\s?[\w.]+)",
        "the image needs a driver with {what}",
        "Update the NVIDIA driver, or name an image that is built for an older CUDA; `mscli gpus` shows the driver's.",
    ),
    Sign(
        "wsl",
        r"(?:nvidia|libcuda)\S*\.so\S*: file exists",
        "the image or the distribution brings its own NVIDIA driver libraries, which hide the projected ones",
        "Remove the Linux driver's packages there: in WSL only the Windows driver may be installed.",
    ),
    Sign(
        "wsl",
        _any(*NO_ADAPTERS, *WSL_DRIVER),
        "Windows does not give this Linux its GPU",
        "Update Windows and its NVIDIA driver, then: wsl --update && wsl --shutdown",
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
        r"unresolvable CDI devices? (?P<what>.*)|(?:parse|load) CDI spec|device driver \"cdi\"",
        "the CDI specification does not name this GPU {what}",
        _CDI,
    ),
    Sign(
        "cdi",
        r"error (?:stat'ing|mounting) \S*(?:nvidia|libcuda)\S*|lstat \S*(?:nvidia|libcuda)\S*: no such file"
        r"|failed to stat CDI host device",
        "the CDI specification names files of a driver that is no longer there",
        _CDI,
    ),
    Sign(
        "docker_gpu",
        _any(*NO_VENDOR),
        "Docker gives GPUs by CDI here, and there is no CDI specification of an NVIDIA GPU",
        f"{_TOOLKIT}. Without an NVIDIA GPU in this machine that changes nothing.",
    ),
    Sign("cdi", rf"failed to inject CDI|{_any(*CDI_FAULTS)}", "the CDI specification of the GPUs does not do", _CDI),
    Sign(
        "container_gpu_lost",
        _any(*GPU_LOST),
        "the container is refused its GPU",
        "Let the toolkit use CDI, or Docker the cgroup driver cgroupfs, and start it anew.",
    ),
    Sign(
        "docker_gpu",
        _any(*NO_RUNTIME),
        "Docker cannot give a container a GPU: it has no NVIDIA runtime",
        f"{_TOOLKIT}. Without an NVIDIA GPU in this machine that changes nothing.",
    ),
    Sign(
        "docker_gpu",
        _any(*NO_GPUS_FLAG),
        "this Docker is too old to give a container GPUs",
        "Install Docker 19.03 or later (https://docs.docker.com/engine/install).",
    ),
    Sign(
        "docker_gpu",
        _any(*TOOLKIT_FAULTS),
        "the NVIDIA container toolkit cannot work with its configuration or Docker's",
        "Look into /etc/docker/daemon.json and /etc/nvidia-container-runtime/config.toml.",
    ),
    Sign(
        "docker_gpu",
        _any(*NVML_REFUSED),
        "the container's user may not use the GPUs",
        "Look at the rights of /dev/nvidia* on the host: ls -l /dev/nvidia*",
    ),
    Sign(
        "docker_gpu",
        r"nvidia-container-cli: (?P<what>.{1,120})",
        "the NVIDIA container toolkit failed: {what}",
        f"Try `sudo nvidia-container-cli info`. {_TOOLKIT}",
    ),
    Sign(
        "docker_gpu",
        _any(*NO_SMI),
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
        "container_user",
        _any(*NO_USER),
        "the image does not know the user as whom its program is to run",
        "Name another image in the profile's `image`, or give the user an entry in its /etc/passwd.",
    ),
    Sign(
        "permissions",
        r"failed to create the container ID file|container ID file.*(?:denied|read-only)",
        "the client may not write into the instance's folder",
        "Docker from a snap sees no hidden folders: let MSCLI_HOME name one that is not hidden, or install Docker "
        "from its own package.",
    ),
    Sign(
        "permissions",
        r"mkdir \S+: (?:permission denied|read-only file system|operation not permitted)",
        "the container engine may not write where it has to",
        "`namei -l FOLDER` shows which folder on the way is closed. Docker from a snap reaches homes alone: install "
        "Docker from its own package.",
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
