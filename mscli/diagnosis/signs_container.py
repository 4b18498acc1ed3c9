"""Signs of containers: the runtime that gives them GPUs, the socket, the users inside.

What a container's client itself says is worded in the engine's table (`engines/container_signs`); here stands how much
it weighs in a log, and what else shows the same there.
"""

from __future__ import annotations

from mscli.diagnosis.signs import HINT, LIKELY, STATED, STRONG, TRACE, cuda, sign
from mscli.engines.containers import signs as client

_HOMES = r"(?:\.cache|\.triton|\.config|\.local|\.vllm|\.nv\b|\.huggingface|\.ollama|/root|/nonexistent|/\.\w+)"

SIGNS = (
    sign(
        "docker_gpu",
        STATED,
        *client.NO_RUNTIME,
        r"no runtime for \"?nvidia|RuntimeHandler \"?nvidia\"? not (?:supported|found)",
        r"container error: cgroup subsystem devices not found",
        r"(?:runtimeclass|RuntimeClass)\S* \"?nvidia\"? not found",
        r"NVIDIA Driver was not detected.{0,80}GPU functionality will not be available",
        r"Use the NVIDIA Container Toolkit to start this container with GPU support",
    ),
    sign(
        "docker_gpu",
        0.65,
        *client.NO_VENDOR,
        r"nvidia-container-cli: ldcache error",
        r"nvidia-container-cli: mount error: failed to add device rules",
        r"Insufficient nvidia\.com/gpu",
        unless=r"file exists",
    ),
    sign("docker_gpu", 0.35, r"nvidia-container-cli: ", r"error running (?:prestart )?hook #\d"),
    sign(
        "docker_permission",
        STATED,
        *client.REFUSED,
        r"(?:DockerException|docker\.errors).*(?:Permission denied|PermissionError)",
    ),
    sign("cdi", STATED, *client.CDI_FAULTS, unless=client.NO_VENDOR[0]),
    sign("cdi", 0.3, r"nvidia-ctk cdi generate", r"nvidia\.com/gpu=\w+.*fail"),
    sign(
        "container_gpu_lost",
        STRONG,
        *client.GPU_LOST,
        r"NVMLError_?Unknown",
        r"nvml\w* .{0,30}(?:failed|failure|error).{0,20}(?:Unknown Error|\b999\b)",
        cuda(800),
        unless=r"\bWSL|/usr/lib/wsl",
    ),
    sign("container_gpu_lost", STATED, r"Unknown Error|lost .{0,20}GPU|GPUs? .*disappear", beside=r"daemon-reload"),
    sign(
        "container_user",
        STATED,
        r"getpwuid\S*:? ?(?:uid not found|.*not found)|uid not found",
        *client.NO_USER,
        r"cannot find name for user ID|I have no name!",
        r"No username set in the environment",
        r"\$HOME is not defined|(?<!_)\bHOME (?:environment variable )?is not (?:set|defined)|[Cc]ould not "
        r"determine home",
        rf"(?:Permission denied|Read-only file system|Errno 13|Errno 30)\W.{{0,60}}{_HOMES}",
        rf"{_HOMES}\S*:? .{{0,20}}(?:Permission denied|Read-only file system)",
        r"problem when trying to write in your cache folder",
        r"(?:triton|inductor|cache)\S*.{0,60}(?:not writable|not a writable|is not writeable)",
        unless=r"docker\.sock|systemd\[1\]|ollama",
    ),
    sign("container_user", TRACE, r"created a temporary cache directory at"),
    sign("container_user", 0.4, r"failed to be inspected"),
    sign(
        "permissions",
        STATED,
        r"(?:mkdir|create directory|could not create|cannot create directory|open|lstat|stat|rename|unlink|chown"
        r"|scandir|"
        r"failed to open)\b.{0,120}(?:permission denied|read-only file system|operation not permitted)",
        r"failed to open .*\(Permission denied\)",
        r"SELinux .*(?:preventing|denied)|avc: +denied",
        r"(?:not writable|no write (?:permission|access)|not readable|cannot (?:read|write)) .{0,60}(?:model|cache"
        r"|blob|directory)",
        unless=r"docker\.sock|/dev/nvidia|nvidia-container-cli|no docker",
    ),
    sign(
        "permissions",
        LIKELY,
        r"PermissionError|Permission denied|\bEACCES\b",
        unless=r"docker|/dev/nvidia|uid not found",
    ),
    sign("engine_missing", HINT, r"Cannot connect to the Docker daemon", r"pull access denied"),
    sign("engine_missing", LIKELY, r"manifest for \S+ not found: manifest unknown"),
    sign("docker_gpu", HINT, *client.NO_SMI),
    sign("container_user", LIKELY, r"failed to be inspected", beside=r"uid not found|getpwuid"),
    sign("docker_gpu", HINT, *client.NVML_REFUSED),
    sign("docker_gpu", STATED, *client.NO_GPUS_FLAG, *client.TOOLKIT_FAULTS),
    sign(
        "docker_gpu",
        0.65,
        r"nvidia-container-runtime-hook|no devices found\. Waiting indefinitely",
        r"Incompatible (?:platform|strategy) detected",
        r"daemon\.json\W.{0,100}(?:invalid|unable|cannot|fail|conflict)",
    ),
    sign(
        "container_user",
        STATED,
        r"no (?:passwd|password) entry|mkdir (?:-p )?'?/\.\w+",
        r"(?:Permission denied|Errno 13|Read-only file system)\W.{0,20}'/\.\w+",
    ),
    sign("permissions", STATED, r"path elements are traversable", unless=r"docker\.sock"),
    sign("permissions", 0.6, r"Access is denied|\bEPERM\b|[Oo]peration not permitted", unless=r"nvidia|docker\.sock"),
    sign("engine_missing", LIKELY, r"repository does not exist or may require 'docker login'"),
)
