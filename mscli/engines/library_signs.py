"""Signs that every server around a Python library shares: those of this machine, the hub, the weights, our server."""

from __future__ import annotations

from mscli.diagnosis.signature import Sign

LESS_WEIGHTS = "Take a smaller variant or more GPUs: `mscli plan` shows what fits, `mscli gpus` who holds memory."
LESS_KV = "Ask for less: a smaller --ctx, fewer --users or shorter prompts; `mscli plan` shows what fits."
_LESS_RAM = "Free some RAM, or choose a smaller variant; `mscli plan` shows what fits."
_DRIVER = "Check with `nvidia-smi`; install or reload the NVIDIA driver. In a container: start it with --gpus all."
_AGAIN = "Fetch it again: `mscli pull` checks every file and fetches what is wrong anew."
_HUB = "Fetch the weights first: `mscli pull`; behind a proxy set HTTPS_PROXY. What is here is found by path."

SERVER = (
    Sign(
        "port",
        r"could not listen on (?P<host>\S+):(?P<port>\d+): ",
        "it could not listen on {host}:{port}: the port is taken, or the address is not this machine's",
        "See who has it with `ss -ltnp 'sport = :{port}'`, or take another with --port.",
    ),
    Sign(
        "port",
        r"[Aa]ddress already in use|error while attempting to bind on address",
        "its port is taken",
        "See who has it with `ss -ltnp`, or take another with --port.",
    ),
    Sign(
        "cli_flags",
        r"error: (?P<what>unrecognized arguments: .*|argument \S+: .*|unexpected argument .*|invalid value .*)"
        r"|(?P<other>No such option:? \S+)",
        "a flag is not what this version takes: {what}{other}",
        "Correct or remove it in the profile's `options`.",
    ),
)

DRIVER = (
    Sign(
        "nvml_mismatch",
        r"[Dd]river/library version mismatch",
        "the driver was updated while the old one stays loaded",
        "Reboot, or unload and load the kernel modules.",
    ),
    Sign(
        "driver_too_old",
        r"driver on your system is too old|CUDA driver version is insufficient|unsupported toolchain"
        r"|UNSUPPORTED_PTX_VERSION",
        "the NVIDIA driver is older than the CUDA of this build",
        "Update the NVIDIA driver, or install a build for an older CUDA; `mscli gpus` shows both.",
    ),
    Sign(
        "driver_vs_compat",
        r"\berror \(?803\b|unsupported display driver / cuda driver combination",
        "another libcuda hides the driver's own",
        "Take cuda-compat folders out of LD_LIBRARY_PATH.",
    ),
    Sign(
        "fabric_manager",
        r"(?i)\berror \(?802\b|system not yet initialized|cudaErrorSystemNotReady",
        "the NVSwitch fabric of this machine is not up",
        "sudo systemctl restart nvidia-fabricmanager",
    ),
    Sign("no_driver", r"Found no NVIDIA driver on your system", "there is no NVIDIA driver", _DRIVER),
    Sign(
        "nvml_not_found",
        r"(?P<library>lib(?:cuda|nvidia-ml)\.so\S*): cannot open shared object",
        "the driver's {library} was not found by this process",
        _DRIVER,
    ),
    Sign(
        "suspend",
        r"CUDA (?:driver )?error: unknown error|CUDA_ERROR_UNKNOWN",
        "the driver lost its GPU context, as after a suspend",
        "sudo rmmod nvidia_uvm && sudo modprobe nvidia_uvm",
    ),
    Sign(
        "ecc",
        r"uncorrectable ECC error|CUDA_ERROR_ECC_UNCORRECTABLE",
        "the GPU reports uncorrectable memory errors",
        "Reset or replace it: `mscli gpus` shows which.",
    ),
    Sign(
        "visible_devices",
        r"No CUDA GPUs are available|invalid device ordinal|CUDA_ERROR_(?:NO|INVALID)_DEVICE"
        r"|no CUDA-capable device is detected",
        "CUDA shows the engine none of the planned GPUs",
        "Compare `mscli gpus` with CUDA_VISIBLE_DEVICES in this environment and in the profile's `env`.",
    ),
    Sign(
        "cuda_arch",
        r"no kernel image is available|is not compatible with the current PyTorch installation"
        r"|CUDA_ERROR_NO_BINARY_FOR_GPU",
        "this build holds no code for this GPU's architecture",
        "Install a build for its compute capability (`mscli gpus` shows it); for Blackwell, of CUDA 12.8 or later.",
    ),
    Sign(
        "compute_capability",
        r"FlashAttention only supports Ampere|[Bb](?:float|F)16 is (?:only|not) supported"
        r"|requires compute capability",
        "the GPU is too old for what was asked of it",
        "Take a variant for this GPU's compute capability: `mscli plan`.",
    ),
)

WEIGHTS = (
    Sign(
        "hf_gated",
        r"gated repo|Access to model .* is restricted|awaiting a review from the repo authors",
        "the repository needs its terms accepted, and a token of who accepted them",
        "Accept them on the model's page, then `hf auth login`.",
    ),
    Sign(
        "hf_rate_limit",
        r"\b429\b.*(?:Client Error|Too Many Requests)|Too Many Requests",
        "the hub answers that there were too many requests",
        "Wait some minutes; `hf auth login` raises the limit.",
    ),
    Sign(
        "corrupt_weights",
        r"MetadataIncompleteBuffer|SafetensorError|InvalidHeader|HeaderTooLarge|invalid header"
        r"|safetensors file is incomplete",
        "a weight file is cut off or no safetensors file",
        _AGAIN,
    ),
    Sign(
        "disk_full",
        r"No space left on device",
        "there is no space left where it writes",
        "`df -h` shows where; temporary files go to the instance's folder, downloads to the hub cache.",
    ),
    Sign(
        "permissions",
        r"Permission denied: '?(?P<path>[^'\n]+)|Permission denied \(os error 13\)",
        "this user may not read {path}",
        "Let this user read the files and every folder above them: `namei -l PATH`.",
    ),
    Sign(
        "network_proxy",
        r"ProxyError|CERTIFICATE_VERIFY_FAILED|Name or service not known|UnknownIssuer"
        r"|Temporary failure in name resolution",
        "the hub cannot be reached: proxy, certificate or name server",
        _HUB,
    ),
    Sign(
        "offline",
        r"couldn't connect to 'https://huggingface|LocalEntryNotFoundError|offline mode is enabled"
        r"|Network is unreachable|Could not get directory listing from Hugging Face",
        "it asked the hub, which cannot be reached from here",
        _HUB,
    ),
    Sign(
        "model_not_found",
        r"Repo id must be in the form|does not appear to have a file named (?P<file>\S+)"
        r"|not a valid model identifier|looks like a local path, but that path does not exist|Error no file named",
        "the folder is not there, or lacks a file of the model: {file}",
        _AGAIN,
    ),
    Sign(
        "stalled_download",
        r"^Killed",
        "it was killed while it fetched weights",
        "Fetch them first, resumably: `mscli pull`.",
        beside=r"Downloading|Fetching|ng \d+ files",
    ),
)

HOST = (
    Sign(
        "host_ram",
        r"oom-kill:|Out of memory: Killed process|DefaultCPUAllocator: (?:not enough|can't allocate)"
        r"|Cannot allocate memory|std::bad_alloc|^MemoryError"
        r"|memory allocation of \d+ bytes failed",
        "this machine's free RAM ran out",
        _LESS_RAM,
    ),
    Sign(
        "ulimit",
        r"Too many open files|Resource temporarily unavailable|can't start new thread",
        "a process limit was reached",
        "Raise it in this shell and start again: `ulimit -n 65536; ulimit -u unlimited`.",
    ),
)
