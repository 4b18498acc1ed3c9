"""Failures in the words of public threads: what tools printed there, shortened, each with its cause."""

from __future__ import annotations

FIELD: tuple[tuple[str, str], ...] = (
    (
        "cli_flags",
        "ValueError: Quantization method specified in the model config (marlin) does not match the "
        "quantization method specified in the quantization argument (gptq).",
    ),
    (
        "compute_capability",
        '  File "vllm/model_executor/layers/quantization/gptq_marlin.py", line 84, in from_config\n'
        "ValueError: Marlin does not support weight_bits = uint4b8. Only types = [] are supported (for "
        "group_size = 128, min_capability = 75, zp = False).",
    ),
    (
        "compute_capability",
        "RuntimeError: ('Quantization scheme is not supported for ', 'the current GPU. Min capability: 75. "
        "', 'Current capability: 70.')",
    ),
    (
        "cli_flags",
        "Value error, torch.bfloat16 is not supported for quantization method awq. Supported dtypes: "
        "[torch.float16] [type=value_error, input_value=ArgsKwargs((), {'model_co...additional_config': "
        "{}}), input_type=ArgsKwargs]\n"
        "(APIServer pid=4185) For further information visit https://errors.pydantic.dev/2.11/v/value_error",
    ),
    (
        "oom_kv",
        "main: server is listening on http://127.0.0.1:9009 - starting the main loop\n"
        "srv  params_from_: Chat format: Content-only\n"
        "slot launch_slot_: id  0 | task 0 | processing task\n"
        "/models/llama.cpp/ggml/src/ggml-cuda/ggml-cuda.cu:75: CUDA error\n"
        "CUDA error: out of memory\n"
        "  current device: 1, in function alloc at ggml-cuda.cu:400",
    ),
    (
        "nvcc_jit",
        "(EngineCore_0 pid=3966) ERROR 08-21 07:45:43 [core.py:700]     sampler_output = "
        "self.sampler(logits=logits,\n"
        "nvcc fatal   : Unknown option '-static-global-template-stub=false'\n"
        "ninja: build stopped: subcommand failed.",
    ),
    (
        "container_gpu_lost",
        "$ sudo docker exec -it ollama nvidia-smi\n"
        "Failed to initialize NVML: Unknown Error\n"
        "\n"
        "$ nvidia-smi\n"
        "| NVIDIA-SMI 535.288.01             Driver Version: 535.288.01   CUDA Version: 12.2     |\n"
        "| GPU  Name                 Persistence-M | Bus-Id        Disp.A | Volatile Uncorr. ECC |\n"
        "|                                         |                      |               MIG M. |",
    ),
    (
        "container_gpu_lost",
        'time=2024-03-09T14:52:42.622Z level=INFO source=images.go:800 msg="total blobs: 6"\n'
        'time=2024-03-09T14:52:46.434Z level=INFO source=gpu.go:249 msg="Unable to load CUDA management '
        'library /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.550.54.14: nvml vram init failure: 999"\n'
        'time=2024-03-09T14:52:46.434Z level=INFO source=routes.go:1042 msg="no GPU detected"',
    ),
    (
        "container_gpu_lost",
        'level=INFO source=gpu.go:197 msg="error looking up nvidia GPU memory" error="nvcuda failed to get '
        'primary device context 800"\n'
        'level=INFO source=server.go:320 msg="starting llama server" '
        'cmd="/tmp/ollama2862667729/runners/cpu_avx2/ollama_llama_server --parallel 1"',
    ),
    (
        "disk_full",
        "Error: write /usr/share/ollama/.ollama/models/blobs/sha256:065b-partial-0: no space left on device",
    ),
    (
        "stalled_download",
        "pulling manifest\npulling a3c15cdb0e0f...  98% 6.5 GB/6.6 GB\nError: max retries exceeded: EOF",
    ),
    (
        "network_proxy",
        'level=INFO source=download.go:175 msg="downloading 60e05f210007 in 16 292 MB part(s)"\n'
        'level=INFO source=download.go:291 msg="60e05f210007 part 5 attempt 0 failed: Get '
        '\\"https://dd20bb.r2.cloudflarestorage.com/x\\": read tcp 172.17.0.2:4->104.18.9.90:443: read: '
        'connection reset by peer, retrying in 1s"',
    ),
    (
        "model_not_found",
        'Could not get file "tokenizer.json" from API: RequestError(Status(404, Response[status: 404, '
        "status_text: Not Found, url: "
        "https://huggingface.co/microsoft/Phi-3-small-128k-instruct/resolve/main/tokenizer.json]))",
    ),
    (
        "python_env",
        "ValueError: Couldn't instantiate the backend tokenizer from one of: \n"
        "(1) a `tokenizers` library serialization file, \n"
        "(2) a slow tokenizer instance to convert or \n"
        "(3) an equivalent slow tokenizer class to instantiate and convert. \n"
        "You need to have sentencepiece installed to convert a slow tokenizer to a fast one.",
    ),
    (
        "torch_abi",
        "ImportError: /usr/local/lib/python3.10/dist-packages/vllm/_C.cpython-310-x86_64-linux-gnu.so: "
        "undefined symbol: _ZN2at4_ops15to_dtype_layout4callERKNS_6TensorEN3c108optional",
    ),
    (
        "tools",
        "RuntimeError: DeepSeek-V3 Tool parser could not locate tool call start/end tokens in the tokenizer!",
    ),
    (
        "python_env",
        "ImportError: Using `load_in_8bit=True` requires Accelerate: `pip install accelerate` and the latest "
        "version of bitsandbytes",
    ),
    (
        "transformers_old",
        "KeyError: 'mistral'",
    ),
    (
        "container_user",
        '  File "vllm/model_executor/models/registry.py", line 1392, in _run_in_subprocess\n'
        "subprocess.CalledProcessError: Command '['/usr/bin/python3', '-m', "
        "'vllm.model_executor.models.registry']' returned non-zero exit status 1.\n"
        '  File "torch/_inductor/runtime/cache_dir_utils.py", line 23, in default_cache_dir\n'
        "KeyError: 'getpwuid(): uid not found: 1000910000'",
    ),
    (
        "host_ram",
        "500 Internal Server Error: llama-server startup failed before projector CPU offload retry: "
        "llama-server reported out-of-memory during startup: ggml_backend_cpu_buffer_type_alloc_buffer: "
        "failed to allocate buffer of size 2389377024",
    ),
    (
        "permissions",
        "Mar 27 15:49:20 x11dph systemd[1]: Started ollama.service - Ollama Service.\n"
        "Mar 27 15:49:20 x11dph ollama[18437]: Error: mkdir /mnt/LLM/ollama: permission denied\n"
        "    Process: 8641 ExecStart=/usr/bin/ollama serve (code=exited, status=1/FAILURE)",
    ),
    (
        "permissions",
        "couldn't open modelfile '/root/ollama/examples/Modelfile'. Error: failed to open file: open "
        "/root/ollama/examples/Modelfile: permission denied.",
    ),
    (
        "unknown_arch",
        "ValueError: Unsupported model type mistral",
    ),
    (
        "mig",
        "return int(physical_device_id)\n"
        "ValueError: invalid literal for int() with base 10: 'MIG-4c60d78c-506f-5593-938d-a136eaa1fa52'\n"
        "pydantic ValidationError: Model architectures ['LlamaForCausalLM'] failed to be inspected",
    ),
    (
        "corrupt_weights",
        "Error: llama runner process has terminated: error loading model: tensor 'output.weight' data is not "
        "within the file bounds",
    ),
    (
        "context_truncated",
        "openai.BadRequestError: Error code: 400 - {'object': 'error', 'message': 'max_tokens must be at "
        "least 1, got -563072.', 'type': 'BadRequestError', 'param': None, 'code': 400}",
    ),
    (
        "cli_flags",
        "Value error, User-specified max_model_len (131072) is greater than the derived max_model_len "
        "(max_position_embeddings=32768.0 or model_max_length=None in model's config.json). To allow "
        "overriding this maximum, set the env var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1.",
    ),
    (
        "context_truncated",
        "(APIServer pid=1) ERROR 04-28 14:17:50 [serving_chat.py:257] ValueError: 'max_tokens' or "
        "'max_completion_tokens' is too large: 8192. This model's maximum context length is 8192 tokens and "
        "your request has 1210 input tokens (8192 > 8192 - 1210).",
    ),
    (
        "driver_too_old",
        "Error: llama runner process has terminated: CUDA error: device kernel image is invalid\n"
        "  current device: 0, in function ggml_cuda_compute_forward at ggml-cuda.cu:2326",
    ),
    (
        "nvml_mismatch",
        "nvmlInit_v2 err: 18\n"
        'level=INFO source=gpu.go:300 msg="Unable to load CUDA management library '
        '/nix/store/z/lib/libnvidia-ml.so.545.29.06: nvml vram init failure: 18"',
    ),
    (
        "driver_too_old",
        "dlerr: /usr/lib64/libcuda.so.418.74: undefined symbol: cuCtxCreate_v3\n"
        'level=DEBUG source=gpu.go:385 msg="Unable to load nvcuda" library=/usr/lib64/libcuda.so.418.74 '
        'error="symbol lookup for cuCtxCreate_v3 failed: /usr/lib64/libcuda.so.418.74: undefined symbol: '
        'cuCtxCreate_v3"',
    ),
    (
        "no_driver",
        'level=INFO source=gpu.go:604 msg="no nvidia devices detected by library /usr/lib64/libcuda.so.575.64.05"\n'
        'level=INFO source=gpu.go:379 msg="no compatible GPUs were discovered"',
    ),
    (
        "suspend",
        "cuInit err: 999\n"
        'level=WARN source=gpu.go:562 msg="unknown error initializing cuda driver library" '
        'library=/usr/lib/libcuda.so.550.107.02 error="cuda driver library init failure: 999"',
    ),
    (
        "nvml_mismatch",
        "nvidia-docker.service: Main process exited, code=exited, status=1/FAILURE\n"
        "kernel: NVRM: API mismatch: the client has the version 367.44, but\n"
        "  NVRM: this kernel module has the version 367.35.  Please",
    ),
    (
        "transformers_api",
        '  File "transformers/models/auto/auto_factory.py", line 780, in __getitem__\n'
        "    raise KeyError(key)\n"
        "KeyError: <class 'transformers.models.mistral3.configuration_mistral3.Mistral3Config'>",
    ),
    (
        "tokenizer_format",
        "KeyError: 'layers.0.attention.wk.weight'",
    ),
    (
        "transformers_old",
        "Exception: data did not match any variant of untagged enum PyPreTokenizerTypeWrapper at line 40 column 3",
    ),
    (
        "hf_gated",
        "huggingface_hub.utils._errors.HfHubHTTPError: 403 Client Error: Forbidden for url: \n"
        "https://huggingface.co/api/models/mistralai/Mistral-7B-v0.1/revision/main (Request ID: Root=1-6666)\n"
        "\n"
        "Authorization error.",
    ),
    (
        "hf_gated",
        "Fetching 50 files:   0%|          | 0/50 [00:00<?, ?it/s]\n"
        "requests.exceptions.HTTPError: 403 Client Error: Forbidden for url: "
        "https://huggingface.co/meta-llama/Meta-Llama-3-70B-Instruct/resolve/28bd/model.safetensors\n"
        "huggingface_hub.errors.LocalEntryNotFoundError: An error happened while trying to locate the file "
        "on the Hub and we cannot find the requested files in the local cache.",
    ),
    (
        "vision",
        '{"content":"The server was not compiled for multimodal or the model projector can\'t be loaded."}',
    ),
    (
        "vision",
        "clip_init: failed to load model 'mmproj.gguf': operator(): unable to find tensor v.token_embd.img_break\n"
        "mtmd_init_from_file: error: Failed to load CLIP model from mmproj.gguf",
    ),
    (
        "vision",
        "[1717816557] clip_model_load: don't support projector with: resampler currently\n"
        "llama_server: unable to load clip model",
    ),
    (
        "nvml_not_found",
        "2022/05/13 23:09:23 Loading NVML\n"
        "2022/05/13 23:09:23 Failed to initialize NVML: could not load NVML library.\n"
        "2022/05/13 23:09:23 If this is a GPU node, did you set the docker default runtime to 'nvidia'?",
    ),
    (
        "visible_devices",
        "Auto-detected mode as 'legacy' nvidia-container-cli: device error: no-gpu-has-128MiB-to-run: "
        "unknown device: unknown",
    ),
    (
        "nccl",
        "(RayWorker pid=4751) [E ProcessGroupNCCL.cpp:474] [Rank 1] Watchdog caught collective operation "
        "timeout: WorkNCCL(SeqNum=1, OpType=ALLREDUCE) ran for 1800108 milliseconds before timing out.",
    ),
    (
        "host_ram",
        "(raylet) A worker died or was killed while executing a task by an unexpected system error. Worker "
        "exit type: SYSTEM_ERROR Worker exit detail: Worker unexpectedly exits with a connection error code "
        "2. End of file. There are some potential root causes. (1) The process is killed by SIGKILL by OOM "
        "killer due to high memory usage. (2) ray stop --force is called.",
    ),
    (
        "network_proxy",
        'Error: pull model manifest: Get "https://registry.ollama.ai/v2/library/llama2/manifests/13b": dial '
        "tcp 34.120.132.20:443: connect: connection timed out",
    ),
    (
        "network_proxy",
        'Error: Head "https://registry.ollama.ai/v2/library/qwen/blobs/sha256:1296": unexpected EOF',
    ),
    (
        "docker_gpu",
        "Failed to initialize NVML: Insufficient Permissions\n"
        "nvidia-container-cli: initialization error: nvml error: insufficient permissions: unknown",
    ),
    (
        "no_driver",
        "Errors were encountered while processing:\n"
        " nvidia-dkms-520\n"
        " cuda-drivers-520\n"
        "E: Sub-process /usr/bin/dpkg returned an error code (1)",
    ),
    (
        "xid",
        "kernel: NVRM: Xid (PCI:0000:dc:00): 45, pid=1818990, name=python3, Ch 00000001 caused by previous Xid 149",
    ),
    (
        "xid",
        "Test CUDA failure common.cu:1007\n"
        "'CUDA-capable device(s) is/are busy or unavailable'\n"
        "NVRM: nvAssertOkFailedNoLog: Assertion failed: Reset required [NV_ERR_RESET_REQUIRED] (0x00000062) "
        "returned from status @ kernel_channel.c:2874",
    ),
    (
        "xid",
        "kernel: NVRM: GPU 0000:09:00.0: rm_init_adapter failed, device minor number 0\n"
        "kernel: NVRM: osInitNvMapping: *** Cannot attach gpu",
    ),
    (
        "ecc",
        "NVRM: Xid (PCI:0000:00:08): 94, pid='<unknown>', name=<unknown>, Contained: SM (0x1). RST: No, D-RST: No",
    ),
    (
        "xid",
        "NVRM: Xid (PCI:0000:0b:00): 62, pid=2, name=llama-server\n"
        "NVRM: Xid (PCI:0000:0b:00): 154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)\n"
        'msg="llama-server GPU discovery watchdog timed out"\n'
        'msg="failure during llama-server GPU discovery"',
    ),
    (
        "ollama_two_users",
        "ollama run alfred\n"
        "Error: could not connect to ollama server, run 'ollama serve' to start it\n"
        "$ ollama serve &\n"
        "$ ollama list\n"
        "NAME    ID    SIZE    MODIFIED\n"
        "$ ls /usr/share/ollama/.ollama/models/blobs | wc -l\n"
        "41",
    ),
    (
        "fabric_manager",
        "RuntimeError: Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before "
        "calling NumCudaDevices() that might have already set an error? Error 802: system not yet initialized\n"
        "    Fabric\n"
        "        State : In Progress\n"
        "        Status : N/A",
    ),
    (
        "driver_vs_compat",
        "RuntimeError: Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before "
        "calling NumCudaDevices() that might have already set an error? Error 804: forward compatibility was "
        "attempted on non supported HW",
    ),
    (
        "gguf_unsupported",
        "llama_model_load: error loading model: missing tensor 'blk.0.ffn_down_exps.weight'\n"
        "llama_model_load_from_file_impl: failed to load model",
    ),
    (
        "gguf_unsupported",
        "Error: Cannot find tensor info for output.weight",
    ),
    (
        "gguf_unsupported",
        "error loading model: create_tensor: tensor 'blk.0.attn_qkv.weight' not found\n"
        "llama_load_model_from_file: failed to load model",
    ),
    (
        "gguf_unsupported",
        "error loading model: llama.cpp: tensor 'layers.7.attention_norm.weight' is missing from model",
    ),
    (
        "fork_spawn",
        "ERROR 02-04 23:21:45 core.py:210] RuntimeError: Cannot re-initialize CUDA in forked subprocess. To "
        "use CUDA with multiprocessing, you must use the 'spawn' start method",
    ),
    (
        "build",
        "error: linking with `cc` failed: exit status: 1\n"
        "  |\n"
        '  = note: LC_ALL="C" PATH="/root/.rustup"\n'
        'error: could not compile `mistralrs-bench` (bin "mistralrs-bench") due to 1 previous error',
    ),
    (
        "build",
        "thread 'main' panicked at build.rs:71:\n"
        "Unsupported cuda toolkit version: `12.6`. Please raise a github issue.",
    ),
    (
        "host_ram",
        "Killed\n"
        "  # --error 0x89 --\n"
        "  thread '<unnamed>' panicked at bindgen_cuda-0.1.5/src/lib.rs:262:21:\n"
        '  nvcc error while executing compiling: "nvcc" "--gpu-architecture=sm_89" "-c"',
    ),
    (
        "build",
        "error: found a virtual manifest at `/mistralrs/Cargo.toml` instead of a package manifest",
    ),
)
