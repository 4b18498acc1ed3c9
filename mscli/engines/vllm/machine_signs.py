"""What vLLM's log lines say of the machine and of vLLM's own environment, as data: see vllm_signs."""

from __future__ import annotations

from mscli.diagnosis.signature import Sign

_DRIVER = "Check with `nvidia-smi`; install or reload the NVIDIA driver. In a container: start it with --gpus all."
_NEW_DRIVER = "Update the NVIDIA driver, or install a vLLM that is built for an older CUDA; `mscli gpus` shows both."
_REINSTALL = "Install vLLM anew in an environment of its own, so that both are of one build: mscli engines install vllm"
_TOOLKIT = (
    "Install a CUDA toolkit of torch's version with its headers and let CUDA_HOME name that one folder, or do without "
    "the kernels that are compiled at the start: VLLM_USE_FLASHINFER_SAMPLER=0 in the profile's `env`."
)
_HEADERS = "Install them (Debian, Ubuntu: apt install build-essential python3-dev), for the Python that runs vLLM."

GPU = (
    Sign(
        "nvml_mismatch",
        r"[Dd]river/library version mismatch",
        "the NVIDIA driver was updated while the old one stays loaded",
        "Reboot, or unload and load the kernel modules.",
    ),
    Sign(
        "driver_too_old",
        r"unsatisfied condition: (?P<what>cuda\s?>=\s?[\d.]+)",
        "the image needs a driver with {what}",
        _NEW_DRIVER,
    ),
    Sign(
        "driver_too_old",
        r"driver on your system is too old|CUDA driver version is insufficient|unsupported toolchain"
        r"|UNSUPPORTED_PTX_VERSION",
        "the NVIDIA driver is older than the CUDA that this vLLM was built with",
        _NEW_DRIVER,
    ),
    Sign(
        "driver_vs_compat",
        r"\b[Ee]rror 803\b|unsupported display driver / cuda driver combination",
        "another libcuda hides the driver's own",
        "Remove cuda-compat folders from LD_LIBRARY_PATH, in a container too.",
    ),
    Sign(
        "fabric_manager",
        r"\b[Ee]rror 802\b|system not yet initialized",
        "the NVSwitch fabric of this machine is not up",
        "Start nvidia-fabricmanager in the driver's version: systemctl start nvidia-fabricmanager",
    ),
    Sign(
        "ecc",
        r"uncorrectable ECC error",
        "a GPU reports memory errors",
        "Reboot; if it comes back the card is defective.",
    ),
    Sign("xid", r"fallen off the bus|\bXid\b.*\d", "a GPU stopped answering", "Look at `dmesg | grep -i xid`; reboot."),
    Sign(
        "suspend",
        r"CUDA (?:unknown )?error.*999|CUDA_ERROR_UNKNOWN|CUDA unknown error",
        "the GPU's context is lost, as after a suspend",
        "sudo rmmod nvidia_uvm && sudo modprobe nvidia_uvm",
    ),
    Sign(
        "cuda_arch",
        r"no kernel image is available|(?P<arch>sm_\d+) is not compatible with the current PyTorch",
        "this build has no code for the GPU's architecture {arch}",
        "Install a vLLM whose torch is built for it (RTX 50: CUDA 12.8 or later): mscli engines install vllm",
    ),
    Sign(
        "compute_capability",
        r"(?P<what>Bfloat16) is only supported on GPUs with compute capability of at least (?P<least>[\d.]+)",
        "{what} needs compute capability {least}, and this GPU has less",
        "Pass float16 (`dtype: half` in the profile's `options`), or run a GGUF profile on llama.cpp or Ollama.",
    ),
    Sign(
        "compute_capability",
        r"Quantization scheme is not supported|quantization method \S+ is not supported for the current GPU"
        r"|Min(?:imum)? capability: \d+",
        "this GPU is too old for the way these weights are quantised",
        "Run a GGUF profile on llama.cpp or Ollama: `mscli profiles` shows what fits.",
    ),
    Sign(
        "mig",
        r"invalid literal for int\(\) with base 10: [bu]?'MIG-",
        "this vLLM cannot be given a MIG instance by its UUID",
        "Install vLLM 0.24 or later: mscli engines install vllm",
    ),
    Sign(
        "visible_devices",
        r"invalid literal for int\(\) with base 10: [bu]?'GPU-",
        "this vLLM takes numbers in CUDA_VISIBLE_DEVICES, no UUIDs",
        "Install vLLM 0.24 or later, or let CUDA_VISIBLE_DEVICES name GPUs by number.",
    ),
    Sign(
        "visible_devices",
        r"World size \((?P<wanted>\d+)\) is larger than the number of available GPUs \((?P<there>\d+)\)",
        "{wanted} GPUs are wanted and this process sees {there}",
        "`mscli gpus` shows them; look at CUDA_VISIBLE_DEVICES, in a container at --gpus.",
    ),
    Sign(
        "visible_devices",
        r"CUDA_VISIBLE_DEVICES is set to empty string|No CUDA GPUs are available|invalid device ordinal",
        "the GPUs that CUDA_VISIBLE_DEVICES names are not there",
        "`mscli gpus` shows which are; correct or unset CUDA_VISIBLE_DEVICES.",
    ),
    Sign("no_driver", r"NVML.*Driver Not Loaded|DriverNotLoaded", "the NVIDIA driver is not loaded", _DRIVER),
    Sign(
        "nvml_not_found",
        r"NVML Shared Library Not Found|NVMLError_LibraryNotFound|libcuda\.so\S*: cannot open shared object",
        "the driver's libraries are not there for this process",
        _DRIVER,
    ),
    Sign(
        "wsl",
        r"Failed to infer device type",
        "vLLM found no GPU through NVML; in WSL that happens where nvidia-smi fails although CUDA works",
        "Does `nvidia-smi` work here? In WSL update Windows' driver and remove Linux drivers; elsewhere install one.",
        strength=0.5,
    ),
)

SOFTWARE = (
    Sign(
        "torch_abi",
        r"(?P<library>[^\s/]+\.so\S*): undefined symbol",
        "{library} was compiled for another torch than the one installed",
        _REINSTALL,
    ),
    Sign(
        "torch_abi",
        r"(?P<library>lib(?:cudart|cublas|cudnn|nccl|torch|c10)\w*\.so\S*): cannot open shared object",
        "{library} is missing: torch and vLLM are of different builds",
        _REINSTALL,
    ),
    Sign(
        "torch_abi",
        r"operator torchvision::nms does not exist|No module named 'vllm\._C"
        r"|partially initialized module 'torchvision'",
        "torch, torchvision and vLLM are of different builds",
        _REINSTALL,
    ),
    Sign(
        "python_env",
        r"fatal error: Python\.h: No such file",
        "Python's headers are missing; Triton compiles with them",
        _HEADERS,
    ),
    Sign(
        "python_env",
        r"Failed to find C compiler|error: command '(?:gcc|cc)' failed",
        "there is no C compiler; Triton compiles with it",
        _HEADERS,
    ),
    Sign(
        "nvcc_jit",
        r"(?P<home>:\S*)/bin/nvcc",
        "CUDA_HOME is malformed: the compiler is looked for at {home}/bin/nvcc",
        "Let CUDA_HOME be one folder, without a colon.",
    ),
    Sign(
        "nvcc_jit",
        r"No such file or directory: 'nvcc'|Could not find nvcc|nvcc: (?:command )?not found|CUDA_HOME .*not set"
        r"|fatal error: \S+\.(?:h|hpp|cuh): No such file|No such file or directory: 'ninja'|Ninja is required",
        "a kernel is compiled at the start, and the CUDA compiler or its headers are missing",
        _TOOLKIT,
    ),
    Sign(
        "python_version",
        r"require a different python version|No matching distribution found for vllm",
        "there is no build of this vLLM for this Python",
        "Use Python 3.12 (uv venv --python 3.12), or another version of vLLM.",
    ),
    Sign(
        "mistral_common",
        r"get_lark_from_jinja\(\)|force_tool_names",
        "this mistral_common is newer than this vLLM can use",
        "pip install 'mistral_common==1.12.0' in vLLM's environment.",
    ),
    Sign(
        "mistral_common",
        r"cv2\.dnn' has no attribute|(?:No module named|cannot import name) .*mistral_common"
        r"|mistral[_-]common.*(?:not installed|upgrade|too old)",
        "mistral_common is missing or does not get on with a package beside it",
        "Install mistral_common anew in vLLM's environment; keep one of opencv-python and opencv-python-headless.",
    ),
    Sign(
        "python_env",
        r"Numba needs NumPy (?P<limit>[\d.]+) or less",
        "the NumPy in vLLM's environment is newer than numba can use",
        "pip install 'numpy<={limit}.99' in vLLM's environment.",
    ),
    Sign(
        "python_env",
        r"'aimv2' is already used by a Transformers config",
        "this transformers is newer than this vLLM can use",
        "pip install 'transformers<4.54' in vLLM's environment, or a newer vLLM: mscli engines install vllm",
    ),
    Sign(
        "python_env",
        r"has no attribute all_special_tokens_extended",
        "transformers 5 is newer than this vLLM can use",
        "pip install 'transformers<5' in vLLM's environment, or a newer vLLM: mscli engines install vllm",
    ),
    Sign(
        "python_env",
        r"flashinfer-cubin version \((?P<kernels>[^)]+)\) does not match flashinfer version \((?P<library>[^)]+)\)",
        "the packages of FlashInfer have different versions: flashinfer-cubin {kernels}, flashinfer-python {library}",
        "pip uninstall flashinfer-cubin in vLLM's environment (it is not needed).",
    ),
    Sign(
        "transformers_old",
        r"Transformers does not recognize this architecture|KeyError: '(?:mistral3|pixtral)'"
        r"|model type `mistral3`",
        "transformers is too old for this model",
        "pip install --upgrade transformers in vLLM's environment.",
    ),
    Sign(
        "gguf_unsupported",
        r"Unknown gguf model_type|quantization method: gguf|GGUF model with architecture \S+ is not supported",
        "vLLM does not load the GGUF of this model",
        "Serve the GGUF with llama.cpp or Ollama, or use safetensors with vLLM: `mscli profiles`.",
    ),
    Sign(
        "version_backend_old",
        r"limit_mm_per_prompt` is only supported for multimodal models",
        "this vLLM does not know that the model sees images",
        "Install a newer vLLM: mscli engines install vllm",
    ),
    Sign(
        "unknown_arch",
        r"[Mm]odel architectures? \[?'?(?P<arch>[^\]']+)'?\]? (?:are|is) not supported",
        "this vLLM does not know the architecture {arch}",
        "Install a newer vLLM: mscli engines install vllm",
    ),
    Sign(
        "python_env",
        r"(?:ModuleNotFoundError|ImportError): No module named '(?P<module>[^']+)'|requires the (?P<other>\w+) library",
        "the package {module}{other} is missing in vLLM's environment",
        _REINSTALL,
    ),
    Sign(
        "fork_spawn",
        r"re-initialize CUDA in forked subprocess",
        "CUDA was in use before the workers were forked",
        "Set VLLM_WORKER_MULTIPROC_METHOD: spawn in the profile's `env`.",
    ),
)
