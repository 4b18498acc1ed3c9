"""Failures in the words of drivers, containers, hubs and engines: at least two excerpts for every code of the list."""

from __future__ import annotations

EXCERPTS: dict[str, tuple[str, ...]] = {
    "no_driver": (
        "vllm-host kernel: Lockdown: modprobe: unsigned module loading is restricted\n"
        "modprobe: ERROR: could not insert 'nvidia': Key was rejected by service",
        "UserWarning: CUDA initialization: Found no NVIDIA driver on your system. Please check that you have an "
        "NVIDIA GPU "
        "and installed a driver from http://www.nvidia.com/Download/index.aspx",
        "pynvml.NVMLError_DriverNotLoaded: Driver Not Loaded",
        "nvidia-container-cli: initialization error: nvml error: driver not loaded: unknown",
    ),
    "nvml_not_found": (
        "pynvml.NVMLError_LibraryNotFound: NVML Shared Library Not Found",
        "AssertionError: libcuda.so cannot found!\nPossible files are located at [].",
        "ImportError: libcuda.so.1: cannot open shared object file: No such file or directory",
        'time=2026-01-02T10:00:00Z level=INFO source=gpu.go:630 msg="Unable to load cudart library" '
        "library=/usr/lib/libcuda.so.1",
    ),
    "nvml_mismatch": (
        'level=WARN source=gpu.go:669 msg="nvml vram init failure: 18"',
        "NVRM: API mismatch: the client has the version 550.127.05, but\n"
        "NVRM: this kernel module has the version 550.120.  Please\n"
        "NVRM: make sure that this kernel module and all NVIDIA driver\nNVRM: components have the same version.",
        "nvidia-container-cli: initialization error: nvml error: driver/library version mismatch: unknown.",
    ),
    "driver_too_old": (
        "RuntimeError: The NVIDIA driver on your system is too old (found version 11040). Please update your GPU "
        "driver",
        "ggml_cuda_init: failed to initialize CUDA: CUDA driver version is insufficient for CUDA runtime version",
        "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.9, please update your driver",
        "torch.AcceleratorError: CUDA error: the provided PTX was compiled with an unsupported toolchain.",
        "cudaGetDeviceCount() returned 35",
    ),
    "driver_vs_compat": (
        "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 803: system has unsupported display "
        "driver / cuda "
        "driver combination",
        "cuInit failed with code 803",
        "CUDA error 34: CUDA driver is a stub library",
        "Error 804: forward compatibility was attempted on non supported HW",
    ),
    "wsl": (
        "nvidia-container-cli: initialization error: WSL environment detected but no adapters were found: unknown",
        "Failed to initialize NVML: GPU access blocked by the operating system\nFailed to properly shut down NVML",
        "Linux 5.15.167.4-microsoft-standard-WSL2\n"
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
    ),
    "fabric_manager": (
        "cudaGetDeviceCount failed, code 802: system not yet initialized",
        "CUDA initialization: Unexpected error from cudaGetDeviceCount(). Error 802: system not yet initialized",
        "nv-fabricmanager: fabric manager NVIDIA GPU driver interface version 570.86.15 don't match with driver "
        "version "
        "570.124.06. Please update with matching NVIDIA driver package.",
    ),
    "suspend": (
        'time=2026-02-03T08:00:00Z level=INFO msg="cuda driver library init failure: 999"',
        "systemd-sleep[991]: System returned from sleep operation 'suspend'.\n"
        "ggml_cuda_init: failed to initialize CUDA: unknown error",
        "RuntimeError: CUDA unknown error - this may be due to an incorrectly set up environment, e.g. changing env "
        "variable CUDA_VISIBLE_DEVICES after program start. Setting the available devices to be zero.",
    ),
    "xid": (
        "kernel: NVRM: Xid (PCI:0000:41:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
        "kernel: NVRM: Xid (PCI:0000:81:00): 119, pid=4242, name=vllm, Timeout after 6s of waiting for RPC "
        "response from "
        "GPU0 GSP! Expected function 76",
        "Unable to determine the device handle for GPU0000:02:00.0: GPU is lost.  Reboot the system to recover "
        "this GPU",
        "pynvml.NVMLError_GpuIsLost: GPU is lost",
    ),
    "ecc": (
        "NVRM: Xid (PCI:0000:3b:00): 48, pid=1, An uncorrectable double bit error (DBE) has been detected on GPU",
        "CUDA error 214: uncorrectable ECC error encountered",
        "NVRM: Xid (PCI:0000:c1:00): 63, pid=77, Row Remapper: New row marked for remapping, reset gpu to activate.",
    ),
    "mig": (
        "ValueError: invalid literal for int() with base 10: 'MIG-377e0049-554c-540b-93c6-d0976f8426cb'",
        "CUDA_VISIBLE_DEVICES=MIG-fe59bfcd-3946-5d58-a00e-183ee397373b\n"
        "Value error, Model architectures ['MistralForCausalLM'] failed to be inspected. Please check the logs",
    ),
    "visible_devices": (
        "RuntimeError: CUDA error: invalid device ordinal\nGPU device may be out of range, do you have enough GPUs?",
        "ValueError: invalid literal for int() with base 10: 'GPU-af7b61d8-21af-baea-6a19-42a1f9f7c3cb'",
        "nvidia-container-cli: device error: 3: unknown device: unknown.",
        "export CUDA_VISIBLE_DEVICES=2\nggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected",
    ),
    "cpu_fallback": (
        "load_tensors: offloading 12 repeating layers to GPU\nload_tensors: offloaded 12/41 layers to GPU",
        "NAME                  ID    SIZE   PROCESSOR         UNTIL\nmistral-small3.1:24b  b9a   26 GB  42%/58% "
        "CPU/GPU   4m",
        'level=INFO source=runner.go:513 msg="failure during llama-server GPU discovery" error="exit status 1"\n'
        'level=INFO source=types.go:60 msg="inference compute" id=cpu library=cpu compute="" name=cpu total="62.7 GiB"',
        'level=INFO source=gpu.go:386 msg="no compatible GPUs were discovered"',
    ),
    "compute_capability": (
        "ValueError: The quantization method fp8 is not supported for the current GPU. Minimum capability: 89. Current "
        "capability: 75.",
        "triton.compiler.errors.CompilationError: type fp8e4nv not supported in this architecture. The supported "
        "fp8 dtypes "
        "are ('fp8e4b15', 'fp8e5')",
        "ptxas /tmp/tmp.ptx, line 312; error   : Feature '.bf16' requires .target sm_80 or higher",
        "ValueError: Your setup doesn't support bf16/gpu. You need torch>=1.10, using Ampere GPU with cuda>=11.0",
    ),
    "cuda_arch": (
        "ERROR: CUDA kernel mul_mat_q has no device code compatible with CUDA arch 1200. ggml-cuda.cu was "
        "compiled for: "
        "500,610,700,750,800",
        "torch.AcceleratorError: CUDA error: no kernel image is available for execution on the device",
        "RuntimeError: No compiled cutlass_scaled_mm for a compute capability less than CUDA device capability: 120",
        "cudaErrorNoKernelImageForDevice: no kernel image (209)",
    ),
    "oom_weights": (
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 13302.36 MiB on device 0: cudaMalloc failed: out "
        "of memory\n"
        "llama_model_load: error loading model: unable to allocate CUDA0 buffer",
        '  File "vllm/model_executor/model_loader/loader.py", line 402, in load_model\n'
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 320.00 MiB. GPU 0 has a total capacity of "
        "23.64 GiB "
        "of which 148.00 MiB is free. Including non-PyTorch memory, this process has 23.49 GiB memory in use.",
        "ValueError: Some modules are dispatched on the CPU or the disk. Make sure you have enough GPU RAM to fit the "
        "quantized model.",
        "Error: This model does not fit on the devices [24.0 GB, cpu], and exceeds total capacity by 11203MB",
    ),
    "oom_kv": (
        "ValueError: To serve at least one request with the models's max seq len (131072), (20.00 GiB KV cache is "
        "needed, "
        "which is larger than the available KV cache memory (4.31 GiB). Based on the available memory, the estimated "
        "maximum model length is 28208.",
        "llama_kv_cache_init: failed to allocate buffer for kv cache\n"
        "llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv cache",
        "RuntimeError: CUDA out of memory occurred when warming up sampler with 256 dummy requests. Please try "
        "lowering "
        "`max_num_seqs` or `gpu_memory_utilization` when initializing the engine.",
        "INFO:     Application startup complete.\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate "
        "2.00 GiB.",
    ),
    "gpu_busy": (
        "ValueError: Free memory on device (3.1/47.4 GiB) on startup is less than desired GPU memory utilization (0.9, "
        "42.66 GiB).",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 64.00 MiB. GPU 0 has a total capacity of "
        "23.64 GiB of "
        "which 31.75 MiB is free. Process 91823 has 21.30 GiB memory in use. Including non-PyTorch memory, this "
        "process "
        "has 2.30 GiB memory in use.",
        "AssertionError: Error in memory profiling. Initial free memory 23.1 GiB, current free memory 23.4 GiB.",
        "RuntimeError: CUDA error: CUDA-capable device(s) is/are busy or unavailable",
        "cuda driver library failed to get device context 46time=2026-09-04T13:22:17.320-04:00 level=WARN",
    ),
    "host_ram": (
        "Error: model requires more system memory (24.8 GiB) than is available (14.1 GiB)",
        "    State:  Terminated\n      Reason:       OOMKilled\n      Exit Code:    137",
        "RuntimeError: [enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: can't allocate memory: you "
        "tried to "
        "allocate 335544320 bytes.",
        "memory cgroup out of memory: Killed process 2310 (llama-server) total-vm:41943040kB",
        "OSError: The paging file is too small for this operation to complete. (os error 1455)",
    ),
    "shm": (
        "RuntimeError: DataLoader worker (pid 41) is killed by signal: Bus error. It is possible that "
        "dataloader's workers "
        "are out of shared memory. Please try to raise your shared memory limit.",
        "node1:77:91 [0] misc/shmutils.cc:87 NCCL WARN Error: failed to extend /dev/shm/nccl-Q1w2E3 to 33030532 bytes, "
        "error: No space left on device (28)",
        "ERROR: Unexpected bus error encountered in worker. This might be caused by insufficient shared memory (shm).",
    ),
    "tp_divisibility": (
        "ValueError: Total number of attention heads (32) must be divisible by tensor parallel size (6).",
        "AssertionError: 32 is not divisible by 3",
        "ValueError: The input size is not aligned with the quantized weight shape. This can be caused by too "
        "large tensor "
        "parallel size.",
    ),
    "nccl": (
        "torch.distributed.DistBackendError: NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.hpp:317, "
        "invalid usage "
        "(run with NCCL_DEBUG=WARN for details), NCCL version 2.21.5\nncclInvalidUsage: This usually reflects "
        "invalid usage "
        "of NCCL library.\nDuplicate GPU detected : rank 1 and rank 0 both on CUDA device 41000",
        "gpu7:310:310 [0] bootstrap.cc:45 NCCL WARN Bootstrap : no socket interface found",
        "[rank1]:[E ProcessGroupNCCL.cpp:616] [Rank 1] Watchdog caught collective operation timeout: "
        "WorkNCCL(SeqNum=1, "
        "OpType=ALLREDUCE)",
        "RuntimeError: NCCL error: remote process exited or there was a network error",
    ),
    "p2p": (
        "Failed: Cuda error /workspace/csrc/custom_all_reduce.cuh:364 'invalid argument'",
        "NotImplementedError: Using RTX 4000 series doesn't support faster communication broadband via P2P or IB. "
        "Please set "
        '`NCCL_P2P_DISABLE="1"` and `NCCL_IB_DISABLE="1"`',
        "RuntimeError: CUDA error: peer access is not supported between these two devices",
        "INFO 02-11 [utils.py:1069] Found nccl from library libnccl.so.2\n"
        "INFO 02-11 [pynccl.py:69] vLLM is using nccl==2.21.5\n"
        "INFO 02-11 [custom_all_reduce_utils.py:206] generating GPU P2P access cache in /root/.cache/vllm/gpu_p2p.json",
    ),
    "docker_gpu": (
        "docker: Error response from daemon: unknown or invalid runtime name: nvidia.",
        'Failed to create pod sandbox: rpc error: code = Unknown desc = RuntimeHandler "nvidia" not supported',
        "WARNING: The NVIDIA Driver was not detected.  GPU functionality will not be available.\n"
        "   Use the NVIDIA Container Toolkit to start this container with GPU support",
        'exec: "nvidia-container-runtime-hook": executable file not found in $PATH',
        "Error response from daemon: failed to discover GPU vendor from CDI: no known GPU vendor found",
    ),
    "docker_permission": (
        "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: Get "
        '"http://%2Fvar%2Frun%2Fdocker.sock/v1.47/containers/json": dial unix /var/run/docker.sock: connect: '
        "permission denied",
        "docker.errors.DockerException: Error while fetching server API version: ('Connection aborted.', "
        "PermissionError(13, "
        "'Permission denied'))",
    ),
    "cdi": (
        "Error: setting up CDI devices: unresolvable CDI devices nvidia.com/gpu=all",
        "docker: Error response from daemon: could not inject CDI devices: failed to inject devices: failed to "
        "stat CDI host "
        'device "/dev/nvidia-uvm": no such file or directory',
        "could not load CDI spec /etc/cdi/nvidia.yaml: failed to parse",
    ),
    "container_gpu_lost": (
        "Failed to initialize NVML: Unknown Error",
        "pynvml.NVMLError_Unknown: Unknown Error",
        "open /dev/nvidiactl: operation not permitted",
    ),
    "container_user": (
        "KeyError: 'getpwuid(): uid not found: 1000830000'",
        "PermissionError: [Errno 13] Permission denied: '/.cache'",
        "OSError: No username set in the environment",
        "There was a problem when trying to write in your cache folder (/nonexistent/.cache/huggingface/hub).",
        "groups: cannot find name for group ID 1001\nI have no name!@pod:/$ vllm serve",
    ),
    "torch_abi": (
        "ImportError: /opt/venv/lib/python3.12/site-packages/flash_attn_2_cuda.cpython-312-x86_64-linux-gnu.so: "
        "undefined "
        "symbol: _ZN3c105ErrorC2ENS_14SourceLocationESs",
        "ImportError: libcudart.so.12: cannot open shared object file: No such file or directory",
        "RuntimeError: operator torchvision::nms does not exist",
        "AttributeError: '_OpNamespace' '_C' object has no attribute 'rms_norm'",
        "ImportError: /lib/libcusparse.so.12: undefined symbol: __nvJitLinkComplete_12_4, version libnvJitLink.so.12",
    ),
    "nvcc_jit": (
        "OSError: CUDA_HOME environment variable is not set. Please set it to your CUDA install root.",
        "/bin/sh: 1: /usr/local/cuda/bin/nvcc: not found\nninja: build stopped: subcommand failed.",
        "fatal error: cublasLt.h: No such file or directory\ncompilation terminated.",
        "RuntimeError: Ninja is required to load C++ extensions",
        "/usr/bin/ld: cannot find -lcuda: No such file or directory",
    ),
    "python_env": (
        "RuntimeError: Failed to find C compiler. Please specify via CC environment variable.",
        "ImportError: PixtralProcessor requires the Torchvision library but it was not found in your environment.",
        "ModuleNotFoundError: No module named 'setuptools'",
        "ValueError: numpy.dtype size changed, may indicate binary incompatibility. Expected 96 from C header, got 88",
        "error: externally-managed-environment",
    ),
    "python_version": (
        "ERROR: Package 'vllm' requires a different Python: 3.14.0 not in '<3.14,>=3.10'",
        "  Because the current Python version (3.8.10) does not satisfy Python>=3.9 and vllm depends on Python>=3.9",
        "ERROR: vllm-0.9.2-cp38-abi3-manylinux1_x86_64.whl is not a supported wheel on this platform.",
        "ERROR: Could not find a version that satisfies the requirement torch==2.6.0 (from versions: none)",
    ),
    "mistral_common": (
        "ModuleNotFoundError: No module named 'mistral_common'",
        "ImportError: cannot import name 'ValidationMode' from 'mistral_common.protocol.instruct.validator'",
        "ValueError: 'v13' is not a valid TokenizerVersion",
        "TypeError: GrammarFactory.get_lark_from_jinja() missing 1 required positional argument: 'force_tool_names'",
        "ImportError: Please install mistral_common >= 1.8.6 to use this tokenizer",
    ),
    "transformers_old": (
        "KeyError: 'mistral3'\nDuring handling of the above exception, another exception occurred:",
        "ImportError: cannot import name 'Mistral3ForConditionalGeneration' from 'transformers'",
        "ValueError: `rope_scaling` must be a dictionary with two fields, `type` and `factor`, got {...}",
        "Exception: data did not match any variant of untagged enum ModelWrapper at line 1217944 column 3",
    ),
    "transformers_api": (
        "ValueError: Unrecognized configuration class <class 'transformers.models.mistral3.configuration_mistral3."
        "Mistral3Config'> for this kind of AutoModel: AutoModelForCausalLM.",
        "AttributeError: 'Mistral3Config' object has no attribute 'vocab_size'",
        "TypeError: MistralForCausalLM.forward() got an unexpected keyword argument 'pixel_values'",
    ),
    "bitsandbytes": (
        "ImportError: Using `bitsandbytes` 4-bit quantization requires the latest version of bitsandbytes",
        "AttributeError: /site-packages/bitsandbytes/libbitsandbytes_cpu.so: undefined symbol: "
        "cquantize_blockwise_fp16_nf4",
        "The installed version of bitsandbytes was compiled without GPU support. 8-bit optimizers are unavailable.",
        "Error named symbol not found at line 449 in file /mmfs1/gscratch/bitsandbytes/csrc/ops.cu",
    ),
    "fork_spawn": (
        "RuntimeError: Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, you must "
        "use the "
        "'spawn' start method",
        "RuntimeError:\n        An attempt has been made to start a new process before the\n        current "
        "process has "
        "finished its bootstrapping phase.",
    ),
    "build": (
        "CMake Error at CMakeLists.txt:108 (message): No CMAKE_CUDA_COMPILER could be found.",
        "ERROR: Failed building wheel for llama-cpp-python",
        "ggml_backend_load: no backends are loaded. hint: use ggml_backend_load() or ggml_backend_load_all()",
        "error: failed to run custom build command for `candle-kernels v0.9.1`",
        "error: HTTPS is not supported. Please rebuild with one of: -DLLAMA_BUILD_BORINGSSL=ON",
    ),
    "backend_no_gpu_build": (
        "AssertionError: Torch not compiled with CUDA enabled",
        "warning: no usable GPU found, --gpu-layers option will be ignored\n"
        "warning: one possible reason is that llama.cpp was compiled without GPU support",
        "Error: the candle crate has not been built with cuda support",
        "load_backend: failed to load /opt/llama/libggml-cuda.so",
    ),
    "version_backend_old": (
        "Error: pull model manifest: 412: this model requires a newer version of Ollama",
        "Error: llama runner: this model is not supported by your version of Ollama. You may need to upgrade",
        "Warning: client version is 0.12.3",
    ),
    "unknown_arch": (
        "llama_model_load: error loading model: error loading model architecture: unknown model architecture: "
        "'mistral4'",
        "ValueError: Model architectures ['Mistral3ForConditionalGeneration'] are not supported for now. Supported "
        "architectures: dict_keys(['AquilaModel'])",
        "ValueError: Ministral3ForCausalLM has no vLLM implementation and the Transformers implementation is not "
        "compatible "
        "with vLLM.",
        "Error: Unknown GGUF architecture `pixtral`",
    ),
    "gguf_unsupported": (
        "ValueError: GGUF model with architecture mistral3 is not supported yet.",
        "llama_model_load: error loading model: error loading model vocabulary: unknown pre-tokenizer type: 'tekken2'",
        "llama_model_load: error loading model: missing tensor 'blk.12.attn_q_norm.weight'",
        "Error: unsupported GGUF version 4",
    ),
    "ulimit": (
        "OSError: [Errno 24] Too many open files: '/proc/self/fd'",
        "OpenBLAS blas_thread_init: pthread_create failed for thread 31 of 64: Resource temporarily unavailable",
        "RuntimeError: can't start new thread",
        "thread 'main' panicked: called `Result::unwrap()` on an `Err` value: Os { code: 24, message: \"Too many "
        'open files" }',
    ),
    "tokenizer_format": (
        "ValueError: Failed to load mistral 'params.json' config for model /models/small. Please check if the "
        "model is a "
        "mistral-format model and if the config file exists.",
        "ValueError: No tokenizer file found.",
        "OSError: tekken.json not found in /data/magistral",
        "AttributeError: 'MistralTokenizer' object has no attribute 'convert_tokens_to_ids'",
        "ValueError: missing field `hidden_size` at line 18 column 1",
    ),
    "cli_flags": (
        "vllm: error: unrecognized arguments: --enable-reasoning",
        "error: unexpected argument '--pa-gpu-mem' found",
        "Error: unknown flag: --num-ctx",
        'error while handling argument "--cache-type-k": Unsupported cache type: q9',
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for "
        "CacheConfig\ngpu_memory_utilization\n  Input "
        "should be less than or equal to 1",
        "Value error, User-specified max_model_len (200000) is greater than the derived max_model_len "
        "(max_position_embeddings=131072)",
    ),
    "tools": (
        "TypeError: Error: --enable-auto-tool-choice requires --tool-call-parser",
        "registry.ollama.ai/library/mistral-custom:latest does not support tools",
        "KeyError: 'invalid tool call parser: mistrall (chose from { hermes,mistral })'",
        '{"code":500,"message":"tools param requires --jinja flag","type":"server_error"}',
        "ERROR [mistral_tool_parser.py:177] Error in extracting tool call from response.",
    ),
    "vision": (
        "ValueError: At most 1 image(s) may be provided in one request.",
        "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj",
        "mtmd_init_from_file: error: Failed to load CLIP model from /m/mmproj.gguf",
        "BadRequestError: 400 mistral-24b is not a multimodal model",
    ),
    "chat_request": (
        "jinja2.exceptions.TemplateError: Only user and assistant roles are supported!",
        "mistral_common.exceptions.InvalidMessageOrderException: Expected last role User or Tool for serving but "
        "got assistant",
        "ValueError: As of transformers v4.44, default chat template is no longer allowed, so you must provide a chat "
        "template if the tokenizer does not define one.",
        "PIL.UnidentifiedImageError: cannot identify image file <_io.BytesIO object>",
        "ValueError: Cannot set `add_generation_prompt` to True when the last message is from the assistant.",
    ),
    "sampling": (
        "ValueError: `temperature` (=0.0) has to be a strictly positive float, otherwise your next token scores "
        "will be invalid.",
        "Received request chatcmpl-1: model mistral-small3.1, params: SamplingParams(n=1, temperature=1.0, top_p=1.0)",
        "Setting temperature=1.3 is far from the recommended temperature of 0.15",
        "ValueError: top_p must be in (0, 1], got 1.5.",
    ),
    "context_truncated": (
        'level=WARN source=runner.go:153 msg="truncating input prompt" limit=4096 prompt=18211 keep=4 new=4096',
        "Input prompt (33210 tokens) is too long and exceeds limit of 32768",
        "slot update_slots: id  0 | task 0 | slot context shift, n_keep = 1, n_left = 4094, n_discard = 2047",
        "request (8004 tokens) exceeds the available context size (4096 tokens), try increasing it",
    ),
    "hf_gated": (
        "huggingface_hub.errors.GatedRepoError: 403 Client Error. Cannot access gated repo for url "
        "https://huggingface.co/"
        "mistralai/Mistral-Small-24B-Instruct-2501/resolve/main/params.json. Your request to access model is "
        "awaiting a review",
        'Error: pull model manifest: 401: {"error":"Invalid username or password."}',
        "Error: request error: https://huggingface.co/mistralai/Magistral-Small-2506/resolve/main/config.json: "
        "status code 401",
        "403 Forbidden: Please enable access to public gated repositories in your fine-grained token settings",
    ),
    "hf_rate_limit": (
        "huggingface_hub.errors.HfHubHTTPError: 429 Client Error: Too Many Requests for url: "
        "https://huggingface.co/api/models",
        "OSError: We couldn't connect to 'https://huggingface.co' to load the files\n"
        "requests.exceptions.HTTPError: 429 Client Error: Too Many Requests for url",
        "toomanyrequests: You have reached your pull rate limit.",
    ),
    "network_proxy": (
        "urllib3.exceptions.MaxRetryError: HTTPSConnectionPool(host='huggingface.co', port=443): Max retries "
        "exceeded with "
        "url: /api (Caused by SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate "
        "verify failed: "
        "self-signed certificate in certificate chain')))",
        'Error: pull model manifest: Get "https://registry.ollama.ai/v2/library/mistral/manifests/latest": dial '
        "tcp: lookup "
        "registry.ollama.ai on 127.0.0.53:53: server misbehaving",
        "httpx.ConnectError: [Errno -3] Temporary failure in name resolution",
        "OSError: Tunnel connection failed: 407 Proxy Authentication Required",
        "get_repo_commit: error: HTTPLIB failed: Could not establish connection",
    ),
    "offline": (
        "huggingface_hub.errors.OfflineModeIsEnabled: Cannot reach https://huggingface.co/api/models/x: offline "
        "mode is enabled.",
        "LocalEntryNotFoundError: Cannot find an appropriate cached snapshot folder for the specified revision on "
        "the local "
        "disk and outgoing traffic has been disabled.",
    ),
    "stalled_download": (
        'level=INFO source=download.go:295 msg="b9a7c01d part 14 stalled; retrying. If this persists, press '
        'ctrl-c to exit"',
        "Error while downloading from https://cdn-lfs-us-1.hf.co/repos/x: "
        "HTTPSConnectionPool(host='cdn-lfs-us-1.hf.co', "
        "port=443): Read timed out.\nTrying to resume download...",
        "RuntimeError: An error occurred while downloading using `hf_transfer`. Consider disabling "
        "HF_HUB_ENABLE_HF_TRANSFER",
        "RuntimeError: Data processing error: CAS service error : ReqwestMiddleware Error: Request failed after 5 "
        "retries",
        "requests.exceptions.ChunkedEncodingError: ('Connection broken: IncompleteRead(1048576 bytes read)')",
    ),
    "corrupt_download": (
        "OSError: Consistency check failed: file should be of size 4781571736 but has size 1073741824",
        "Error: digest mismatch, file must be downloaded again: want sha256:aaa, got sha256:bbb",
        "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.",
    ),
    "corrupt_weights": (
        "safetensors_rust.SafetensorError: Error while deserializing header: HeaderTooLarge",
        "gguf_init_from_file: invalid magic characters: 'vers', expected 'GGUF'",
        "_pickle.UnpicklingError: invalid load key, 'v'.",
        "RuntimeError: PytorchStreamReader failed reading zip archive: failed finding central directory",
        "OSError: /models/m does not appear to have files named ('model-00004-of-00010.safetensors',)",
    ),
    "disk_full": (
        "OSError: [Errno 28] No space left on device: '/root/.cache/huggingface/hub/tmp'",
        "Error: max retries exceeded: write /usr/share/ollama/.ollama/models/blobs/sha256-1-partial: no space "
        "left on device",
        "failed to register layer: write /usr/lib/libcublas.so: no space left on device",
        "OSError: [Errno 122] Disk quota exceeded",
    ),
    "model_not_found": (
        "OSError: mistralai/Mistral-Small-3.1 is not a local folder and is not a valid model identifier listed on "
        "'https://huggingface.co/models'",
        "huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' or 'namespace/repo_name': "
        "'/models/nope'.",
        "gguf_init_from_file: failed to open GGUF file '/models/x.gguf' (No such file or directory)",
        "Error: pull model manifest: file does not exist",
        '{"error":{"message":"The model `mistral` does not exist.","type":"NotFoundError","code":404}}',
    ),
    "engine_missing": (
        "bash: vllm: command not found",
        "ModuleNotFoundError: No module named 'vllm'",
        'exec: "ollama": executable file not found in $PATH',
        "Unit ollama.service could not be found.",
        "llama-server: error while loading shared libraries: libllama.so: cannot open shared object file",
    ),
    "ollama_not_running": (
        "ConnectionError: Failed to connect to Ollama. Please check that Ollama is downloaded, running and accessible.",
        "requests.exceptions.ConnectionError: HTTPConnectionPool(host='localhost', port=11434): Max retries "
        "exceeded with "
        "url: /api/chat (Caused by NewConnectionError('[Errno 111] Connection refused'))",
        "Error: could not connect to ollama server, run 'ollama serve' to start it",
    ),
    "ollama_two_users": (
        "Couldn't find '/home/ann/.ollama/id_ed25519'. Generating new private key.\n"
        'level=INFO source=images.go:477 msg="total blobs: 0"\n'
        "Error: model 'mistral-small3.1' not found",
        '$ ollama serve &\n$ ollama run mistral\nError: model "mistral" not found, try pulling it first',
        "OLLAMA_MODELS:/home/bob/.ollama/models\nls /usr/share/ollama/.ollama/models/blobs | wc -l\n14",
    ),
    "permissions": (
        "Error: open /data/ollama/models/blobs/sha256-1: permission denied",
        "PermissionError: [Errno 13] Permission denied: '/srv/models/mistral/config.json'",
        "gguf_init_from_file: failed to open GGUF file '/srv/m.gguf' (Permission denied)",
        "mkdir /mnt/models: read-only file system",
    ),
    "port": (
        "OSError: [Errno 98] Address already in use",
        "Bind for 0.0.0.0:8000 failed: port is already allocated",
        "srv start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 8080",
        "Error: listen tcp 127.0.0.1:11434: bind: Only one usage of each socket address (protocol/network "
        "address/port) is "
        "normally permitted.",
    ),
    "engine_crashed": (
        'level=ERROR source=server.go:1205 msg="do load request" error="Post \\"http://127.0.0.1:46567/load\\": EOF"\n'
        'level=INFO source=sched.go:490 msg="Load failed" error="llama runner process has terminated: exit status 2"',
        "/opt/llama.cpp/ggml/src/ggml-cuda/ggml-cuda.cu:92: GGML_ASSERT(src0->ne[2] == 1) failed\n"
        "Aborted (core dumped)",
        '!!!!!!! Segfault encountered !!!!!!!\n  File "./csrc/cache_kernels.cu", line 0, in vllm::swap_blocks\n'
        "Segmentation fault (core dumped)",
    ),
}
