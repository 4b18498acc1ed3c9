"""Signs of the NVIDIA driver, its libraries and CUDA's start: kernel module, NVML, libcuda, WSL.

Numbers are those of CUDA's driver API and of NVML, which engines print in their own words.
"""

from __future__ import annotations

from mscli.diagnosis.signs import HINT, LIKELY, STATED, STRONG, TRACE, cuda, nvml, sign
from mscli.engines.containers import signs as client

_WSL = r"/usr/lib/wsl|microsoft-standard-WSL|\bWSL2?\b"

_MODULE = (
    sign(
        "no_driver",
        STATED,
        r"couldn'?t communicate with the NVIDIA driver",
        r"modprobe: (?:FATAL|ERROR): .*nvidia",
        r"could not insert '?nvidia",
        r"NVRM: No NVIDIA (?:GPU|graphics|devices?)",
        r"Module nvidia\S* not found",
        r"nvml error: driver not loaded",
        r"/proc/driver/nvidia/version'?: No such file",
        r"Kernel driver in use: nouveau",
        r"\bnouveau\b.*(?:conflict|in use|blacklist)",
        r"(?:insmod|modprobe).*nvidia.*(?:Key was rejected|Required key not available|Operation not permitted)",
        r"Loading of unsigned module is rejected",
        r"Loading of module with unavailable key is rejected",
    ),
    sign(
        "no_driver",
        STRONG,
        r"Found no NVIDIA driver on your system",
        r"NVML_ERROR_DRIVER_NOT_LOADED|NVMLError_?DriverNotLoaded|NVML: Driver Not Loaded",
        nvml(9),
        r"NVIDIA[- ]driver (?:is )?not (?:loaded|installed|found|running)",
        r"driver not loaded",
        r"(?:dkms|nvidia)\S*.*(?:bad exit status|Bad return status for module build)",
        r"kernel headers for kernel \S+ cannot be found",
        r"nvidia-persistenced.*failed to (?:initialize|query)|Failed to query NVIDIA devices",
        r"Unable to load the (?:kernel module )?'?nvidia",
        unless=_WSL,
    ),
    sign("no_driver", 0.4, r"nvidia-container-cli: initialization error: driver (?:rpc )?error"),
    sign("no_driver", STRONG, r"no nvidia devices detected by library", unless=r"VISIBLE_DEVICES=\S"),
    sign(
        "no_driver", STRONG, r"^ nvidia-(?:dkms|driver|kernel)\S*$", beside=r"Errors were encountered while processing"
    ),
    sign("no_driver", 0.55, r"nvidia-smi:? (?:command )?not found", unless=r"executable file"),
    sign("no_driver", HINT, r"^No devices were found", cuda(100), r"no CUDA-capable device is detected"),
    sign("no_driver", TRACE, r"Failed to infer device type", r"nvidia-smi.*(?:failed|not found)"),
    sign("no_driver", 0.4, r"load library failed: libnvidia-ml\.so", r"Unable to detect the number of GPUs"),
    sign(
        "nvml_mismatch",
        STATED,
        r"driver/library version mismatch",
        r"(?:LIB_)?RM_?VERSION_?MISMATCH",
        r"NVRM: API mismatch|API mismatch: the (?:client|NVIDIA kernel module)",
        nvml(18),
        r"kernel module and all NVIDIA driver\s+(?:NVRM: )?components have the same version",
        r"kernel module version \S+ .*does not match",
    ),
    sign(
        "no_driver",
        STATED,
        r"[Ll]ockdown: .*unsigned module|unsigned module loading is restricted",
        r"nvidia\S*: (?:version magic|disagrees about version of symbol|Unknown symbol)",
        r"NVRM: .*(?:is not supported by (?:this|the) NVIDIA|requires? use of the NVIDIA open kernel modules)",
        r"NVIDIA kernel modules? (?:is |are |was |were )?(?:not (?:loaded|found|installed)|missing)",
        r"(?:failed|unable) to (?:load|insert|build|install) (?:the )?(?:module )?\W{0,2}nvidia(?:\.ko)?\b",
        r"adding custom device \W{0,2}/dev/nvidia\S* no such file",
    ),
    sign(
        "no_driver",
        LIKELY,
        r"/dev/nvidia(?:ctl|-uvm|\d)\S*(?::| does| is) (?:no such file|not (?:exist|found)|missing)",
        r"No such file or directory: '?/dev/nvidia(?:ctl|-uvm|\d)",
        r"[Ff]ailed to start (?:the )?NVIDIA (?:Persistence|driver)",
    ),
    sign("no_driver", 0.45, r"Can't initialize NVML", r"(?:cuInit|nvcuda|cudart)\D{0,30}\b3\b(?!\.|:)"),
    sign("nvml_mismatch", 0.35, r"Can't initialize NVML"),
)

_LIBRARY = (
    sign(
        "nvml_not_found",
        STRONG,
        r"NVML Shared Library Not Found|NVMLError_?LibraryNotFound|NVML_ERROR_LIBRARY_NOT_FOUND",
        r"could not load NVML library",
        r"(?:libcuda|libnvidia-ml)\.so\S* cannot (?:be )?found",
        r"(?:unable|failed|could not|cannot) (?:to )?(?:load|find|open|locate|dlopen)\W+(?:\S+ ){0,3}?\S*"
        r"(?:libcuda|libnvidia-ml|nvidia-ml)\b",
        r"(?:cuda driver|nvml|nvcuda) library (?:was )?not found",
        nvml(12),
        unless=r"nvidia-container-cli|no such device|init failure: ?\d",
    ),
    sign(
        "nvml_not_found",
        LIKELY,
        r"(?:libcuda|libnvidia-ml)\.so\S* cannot open shared object",
        r"No platform detected, vLLM is running on UnspecifiedPlatform",
        unless=r"nvidia-container-cli",
    ),
    sign(
        "nvml_not_found",
        0.45,
        r"load library failed: libnvidia-ml\.so",
        r"Failed to infer device type",
        r"Device string must not be empty",
        r"If this is a GPU node, did you (?:set|configure)",
    ),
    sign("nvml_not_found", TRACE, r"No (?:CUDA )?GPUs? (?:was |were )?(?:found|detected)", r"Found no NVIDIA driver"),
    sign(
        "driver_too_old",
        STATED,
        r"driver version is insufficient",
        r"NVIDIA driver (?:on your system )?is too old|NVIDIA driver too old|old (?:CUDA|NVIDIA) driver detected",
        r"CUDA_?ERROR_?INSUFFICIENT_?DRIVER|cudaErrorInsufficientDriver",
        r"unsatisfied condition: (?:cuda|driver|brand)",
        r"PTX was compiled with an unsupported toolchain",
        r"CUDA_ERROR_UNSUPPORTED_PTX_VERSION|cudaErrorUnsupportedPtxVersion",
        cuda(35),
        cuda(222),
        r"built for (?:NVIDIA Driver Release|CUDA) \S+ or later, but",
        r"(?:update|upgrade) your (?:GPU|NVIDIA|CUDA|display) driver",
        r"driver only supports (?:up to )?CUDA",
        r"CUDA driver (?:version )?\S* ?(?:is )?(?:older|lower|less) than",
    ),
    sign("driver_too_old", STRONG, r"undefined symbol: cu(?!da|blas|dnn|rand|fft|sparse|solver|pti|tensor)[A-Z]\w+"),
    sign("driver_too_old", HINT, r"CUDA_ERROR_INVALID_PTX|PTX JIT compilation failed"),
    sign("driver_too_old", LIKELY, r"0xc0000139", r"Expected (?:function|symbol).*cu[A-Z]\w+.*(?:DlSym|not found)"),
    sign("driver_too_old", 0.55, r"device kernel image is invalid|CUDA_ERROR_INVALID_IMAGE", cuda(200)),
    sign(
        "driver_too_old",
        0.4,
        r"forward compatibility was attempted on non supported HW",
        r"CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE",
        cuda(804),
        cuda(36),
    ),
    sign(
        "driver_vs_compat",
        STATED,
        r"unsupported display driver / cuda driver combination",
        r"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH|cudaErrorSystemDriverMismatch",
        cuda(803),
        r"CUDA driver is a stub library|CUDA_ERROR_STUB_LIBRARY|cudaErrorStubLibrary",
    ),
    sign(
        "driver_vs_compat",
        STRONG,
        r"forward compatibility was attempted on non supported HW",
        r"CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE|cudaErrorCompatNotSupportedOnDevice",
        cuda(804),
        cuda(34),
    ),
    sign(
        "nvml_not_found",
        STRONG,
        r"couldn'?t (?:find|load|open) (?:the )?\S*(?:libnvidia-ml|libcuda|nvml)\b",
        r"(?:libcuda|libnvidia-ml)\.so\S*\W{1,4}(?:is |was )?(?:not found|missing|not available)",
        r"[Uu]nable to dynamically load the \W{0,2}(?:cuda|nvcuda|nvml)\W{0,2} shared library",
        r"CUDA_ERROR_SHARED_OBJECT_\w+|cuInit\W.{0,40}\b303\b",
        r"dlopen\w*\W.{0,40}(?:libcuda|libnvidia-ml)\.so.{0,60}(?:fail|error|cannot|not found)",
        unless=r"nvidia-container-cli|file exists",
    ),
    sign("nvml_not_found", 0.4, r"Can't initialize NVML"),
    sign(
        "driver_too_old",
        STATED,
        r"driver on your system.{0,20}found version \d+",
        r"(?:entry point|procedure) .{0,80}nvcuda",
        r"(?:NVIDIA|CUDA|GPU|display) driver (?:version )?\S* ?(?:is )?(?:too old|outdated|older than)",
        r"(?:requires?|needs?|minimum|at least) .{0,20}(?:NVIDIA |CUDA |GPU )?driver (?:version )?(?:>=? ?)?\d{3}",
        r"driver (?:version )?(?:>=? ?)?\d{3}[\d.]* (?:or (?:newer|later|higher|above)|is required|\+)",
    ),
    sign("driver_too_old", 0.6, r"[Uu]nsupported \.version \d"),
    sign("driver_vs_compat", 0.6, r"/cuda\S*/compat\S*/libcuda|/stubs/libcuda"),
)

_WINDOWS = (
    sign(
        "wsl",
        STATED,
        *client.NO_ADAPTERS,
        r"GPU access blocked by the operating system",
        r"lib(?:nvidia-ml|cuda)\S*: file exists",
        r"libdxcore\S*(?: cannot open shared object|.*not found)",
        r"dxcore.*(?:initialization failed|failed to initialize)",
        r"Windows (?:build|version).*(?:too old|not supported|required|does not support)",
        r"WSL ?1\b.*not support|WSL2 (?:is )?required",
    ),
    sign(
        "wsl",
        STATED,
        nvml(9),
        r"Driver Not Loaded|DRIVER_NOT_LOADED",
        r"couldn'?t communicate with the NVIDIA driver",
        r"Failed to infer device type|NVML Shared Library Not Found",
        r"Failed to initialize NVML|Unable to determine the device handle",
        beside=_WSL,
    ),
    sign("wsl", 0.65, *client.WSL_DRIVER),
    sign("wsl", HINT, r"load library failed: libnvidia-ml\.so\.1", r"Failed to initialize NVML: N/A"),
    sign("wsl", TRACE, r"Failed to infer device type", r"dxgkio_\w+: Ioctl failed"),
    # CUDA error 500 at its very start: libcuda and what lies below it are of different origin, as under WSL.
    sign("wsl", LIKELY, r"(?:cuInit|nvcuda|cuda driver library)\D{0,40}\b500\b"),
    sign("wsl", LIKELY, r"wsl(?:\.exe)? --(?:update|install)|WSL (?:kernel|version) .{0,40}(?:old|update|required)"),
)

SIGNS = (*_MODULE, *_LIBRARY, *_WINDOWS)
