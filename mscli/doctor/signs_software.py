"""Signs of the software around an engine: builds that do not match, tools and packages that are missing, versions."""

from __future__ import annotations

from mscli.doctor.signs import HINT, LIKELY, STATED, STRONG, TRACE, sign

_PLATFORM_PROBES = (
    r"(?!amdsmi|torch_xla|habana|intel_extension|tpu|libtpu|vllm\b|mistral_common|bitsandbytes|flash_attn_3)"
)

_BINARIES = (
    sign(
        "torch_abi",
        STATED,
        r"undefined symbol: \w*(?:c10|5torch|2at\d|caffe2|aoti|THP|torch_)\w*",
        r"undefined symbol: (?:__nvJitLink|cublas|cudnn|nccl|cusparse|ncclComm)\w*",
        r"compiled with different CUDA (?:major )?versions",
        r"operator torchvision::nms does not exist",
        r"'_OpNamespace' '\w+' object has no attribute",
        r"No module named 'vllm\._\w*C\w*'",
        r"symbol (?:lookup error|not found).*(?:libtorch|libc10|_C\.)",
        r"(?:compiled|built) (?:with|against|for) (?:a different|another) (?:version of )?(?:torch|PyTorch)",
    ),
    sign(
        "torch_abi",
        STRONG,
        r"lib(?:torch\w*|c10\w*|cudart|cublas\w*|cudnn\w*|cusparse\w*|cupti|nvrtc|cufft|curand|nvJitLink|nvshmem\w*)"
        r"\S*\.so\S* cannot open shared object",
        r"DLL load failed while importing _C",
        r"undefined symbol: _Z",
        unless=r"while loading shared libraries",
    ),
    sign("torch_abi", 0.55, r"cannot import name '\w+' from 'torch", r"module 'torch\S*' has no attribute"),
    sign("torch_abi", 0.55, r"requires torch[=<>~ ]+\S+ .{0,20}but you have torch"),
    sign(
        "nvcc_jit",
        STATED,
        r"Could not find nvcc|nvcc:? (?:command )?not found|No such file or directory: '\S*nvcc'",
        r"\bnvcc\b.{0,20}(?:No such file|is not (?:found|installed|available))",
        r"CUDA_HOME\b.{0,60}(?:not set|does not exist|not found|not exist|is None|undefined)",
        r"(?:set|find|locate) (?:the )?(?:CUDA_HOME|CUDA toolkit|CUDA root)",
        r"(?<![\w/.]):/\S*cuda\S*",
        r"(?:[Nn]inja (?:is )?(?:required|not found|not installed)|No such file or directory: 'ninja')",
        r"fatal error: (?:cu\w+|nv\w+|cooperative_groups|cub|thrust|cuda|crt|nccl|cccl|cutlass|flashinfer)\S*"
        r"\.(?:h|hpp|cuh|inl)\b:? No such file",
        r"(?:cannot find|unable to find library) -l(?:cuda|cudart|cublas|nvrtc|curand)\b",
        r"unsupported GNU version! gcc versions later than",
        r"failed to open libnvrtc-builtins|ptxas(?:'|:)? (?:not found|No such file)|Cannot find ptxas",
        r"nvcc fatal",
        unless=r"CMake|cargo|Building wheel",
    ),
    sign("nvcc_jit", LIKELY, r"ninja: build stopped|CalledProcessError.*ninja|Command '\['ninja'"),
    sign("nvcc_jit", HINT, r"Error building extension '|Ninja build failed", r"deep_gemm.*(?:Assertion|CUDA)"),
    sign(
        "fork_spawn",
        STATED,
        r"re-initialize CUDA in forked subprocess",
        r"must use the 'spawn' start method",
        r"before the\s+current process has finished its\s+bootstrapping phase",
        r"daemonic processes are not allowed to have children",
        r"freeze_support\(\)",
    ),
    sign("fork_spawn", HINT, r"CUDA error: initialization error", r"context has already been set"),
    sign(
        "build",
        STATED,
        r"CMake Error|No CMAKE_CUDA_COMPILER could be found|Could not find (?:CMake|CUDAToolkit)",
        r"Failed (?:to build|building wheel)|Could not build wheels|metadata-generation-failed",
        r"error: could not compile|error: linker `\w+` not found|failed to run custom build command",
        r"Microsoft Visual C\+\+ \S+ (?:or greater )?is required",
        r"built without (?:lib)?(?:curl|ssl|https|openssl)|HTTPS is not supported\. Please rebuild|not built with SSL",
        r"no backends are loaded",
        r"[Cc]ompile with (?:the )?(?:feature )?.?(?:--features )?(?:flash-attn|cudnn|nccl)",
        r"detected CUDA version \S+ mismatches the version that was used to compile",
        r"make(?:\[\d\])?: \*\*\* ",
        r"Illegal instruction|SIGILL|signal 4\b",
        r"`(?:nvcc|nvidia-smi)` failed\. Ensure",
        unless=r"nvidia\S*dkms|dkms.*nvidia",
    ),
    sign("build", STATED, r"nvcc fatal|Unsupported gpu architecture", beside=r"CMake|cargo|Building wheel|make"),
    sign(
        "build",
        LIKELY,
        r"error: subprocess-exited-with-error|did not run successfully|command '\S*(?:gcc|g\+\+|cmake)' failed",
    ),
    sign("build", 0.4, r"GLIBC_\d\S*' not found", r"not (?:compiled|built) with", r"compiled without"),
    sign(
        "backend_no_gpu_build",
        STATED,
        r"not compiled with (?:GPU offload|CUDA|GPU)|compiled without (?:GPU|CUDA)|built without (?:GPU|CUDA|cuBLAS)",
        r"Torch not compiled with CUDA enabled",
        r"candle crate has not been built with cuda|without the `?cuda`? feature|CUDA features? (?:is|are) not enabled",
        r"no GPU (?:offload )?support|not built with GPU",
        r"failed to load \S*ggml-cuda\S*|load_backend: failed .*cuda",
        r"dynamic LLM libraries\W+(?:runners=)?\W*\[(?:cpu\w*[ ,]*)+\]",
        unless=r"bitsandbytes",
    ),
    sign("backend_no_gpu_build", STRONG, r"no usable GPU found, --gpu-layers", r"no GPU backend|n_gpu_layers.*ignored"),
    sign("backend_no_gpu_build", HINT, r"torch[^\n]{0,12}\d\+cpu\b", beside=r"[Ee]rror|is_available\(\)\W+False"),
)

_PYTHON = (
    sign(
        "python_env",
        STATED,
        r"Python\.h: No such file",
        r"Failed to find C compiler|No such file or directory: '(?:gcc|cc|g\+\+|clang|\S*-gcc)'",
        r"\b(?:gcc|cc): (?:command )?not found",
        r"externally-managed-environment",
        r"PackageNotFoundError|No package metadata was found",
        r"requires? (?:the )?(?:\w+ )?(?:[Tt]orchvision|[Aa]ccelerate|[Pp]illow|sentencepiece|protobuf|tiktoken"
        r"|gguf|kernels)"
        r"(?:`|'|\b).{0,40}(?:librar|packag|install|`pip)",
        r"need to have \w+ installed|requires Accelerate|but it was not found in your environment",
        r"ImportError: .*requires? the following packages|This modeling file requires",
        r"numpy\.dtype size changed|compiled using NumPy 1\.x cannot be run in",
        r"Please install .{0,40}(?:with|using|via|by) .?(?:pip|conda)",
        r"Numba needs NumPy|requires numpy",
    ),
    sign(
        "python_env",
        LIKELY,
        rf"No module named '?\"?{_PLATFORM_PROBES}\w",
        r"cannot import name '\w+' from (?:partially initialized )?(?:module )?'",
        r"ResolutionImpossible|conflicting dependencies|dependency resolver does not currently",
        r"GLIBCXX_\S+' not found|CXXABI_\S+' not found",
        r"libGL\.so\.1: cannot open|libgthread|libsndfile|libpython3\S* cannot open",
        r"Descriptors cannot (?:not )?be created directly",
        r"(?:[Pp]lease|[Tt]ry|[Rr]un|with|using).{0,20}pip install [\"'`]?\w",
        unless=r"platform is not available because: No module named|mistral_common'|bitsandbytes",
    ),
    sign(
        "python_version",
        STATED,
        r"Requires-Python|requires a different Python|require a different python version",
        r"requires Python\b.{0,10}(?:>=|<|==|~=|\d)|Python (?:version )?(?:>=?|<=?) ?3\.\d+ (?:is )?required",
        r"current Python version \(\S+\) does not satisfy|no wheels? with a matching Python",
        r"Python 3\.\d+\S* is not (?:yet )?supported|(?:unsupported|incompatible) Python version",
        r"not compatible with this Python",
        r"is not a supported wheel on this platform",
        r"only (?:supports|compatible with) Python",
        r"Python ABI tag",
    ),
    sign(
        "python_version",
        0.65,
        r"No matching distribution found for|Could not find a version that satisfies the requirement",
        r"unsupported operand type\(s\) for \|: 'type'",
        unless=r"Max retries exceeded|NewConnectionError|Temporary failure",
    ),
    sign(
        "mistral_common",
        STATED,
        r"No module named '?\"?mistral_common",
        r"cannot import name .*from 'mistral_common",
        r"mistral[-_]common\b.{0,60}(?:not installed|is required|too old|upgrade|outdated|>=|==|not found|required)",
        r"(?<!pip.)\b(?:install|upgrade|requires?|update)\b.{0,40}mistral[-_]common",
        r"get_lark_from_jinja|GrammarFactory\.\w+\(\)",
        r"cv2\.dnn\W.*DictValue|mistral_common\S*.{0,80}cv2|cv2\b.{0,80}mistral_common",
        r"is not a valid TokenizerVersion",
        r"(?:Unknown|Unrecognized|Unsupported|unsupported) (?:mistral )?tokenizer version",
        r"(?:Tekkenizer|MistralTokenizer|SpecialTokenPolicy|InstructTokenizer\w*)\S* (?:got an unexpected keyword"
        r"|missing \d)",
        r"module 'mistral_common\S*' has no attribute",
    ),
    sign(
        "mistral_common",
        0.55,
        r"mistral_common/\S+\.py\", line \d+",
        r"site-packages/mistral_common",
        unless=r"roles?\b",
    ),
    sign("mistral_common", HINT, r"libGL\.so\.1: cannot open"),
    sign(
        "bitsandbytes",
        STATED,
        r"No module named '?\"?bitsandbytes|bitsandbytes\.nn",
        r"CUDA SETUP: (?:Required library|CUDA detection failed|Defaulting|Something|.*[Ee]rror|Problem)",
        r"CUDA Setup failed",
        r"libbitsandbytes\S*.{0,60}(?:not found|No such file|cannot open|missing)",
        r"version of bitsandbytes was compiled without GPU support",
        r"bitsandbytes\b.{0,80}(?:not (?:installed|found|supported|available)|required?|failed|[Cc]ould not|too old"
        r"|latest)",
        r"(?<!pip.)\b(?:install|upgrade|requires?|[Cc]ould not load|[Ff]ailed to load"
        r"|[Uu]sing)\b.{0,20}\bbitsandbytes\b"
        r"(?!.{0,40}CPU gemm)",
        r"undefined symbol: c(?:get_managed|quantize|dequantize|adam|igemm|_?bnb)\w+",
        r"[Ee]rror .{0,60} at line \d+ in file \S*(?:ops\.cu|bitsandbytes)",
        r"cuBLAS API failed with status 15|A GPU is needed for quantization",
        r"Configured (?:CUDA|ROCm) binary not found",
    ),
    sign(
        "ulimit",
        STATED,
        r"[Tt]oo many open files|\bEMFILE\b|\bENFILE\b|RLIMIT_\w+",
        r"can'?t start new thread|pthread_create (?:failed|error)|Thread creation failed",
        r"failed to mlock|(?:increas|rais|check)\w* .{0,30}ulimit",
        r"fork: retry|max_map_count|os error 24\b|Errno 24\b|unable to create (?:new )?(?:native )?thread",
    ),
    sign("ulimit", LIKELY, r"Resource temporarily unavailable|BlockingIOError|os error 11\b"),
)

_MODELS = (
    sign(
        "transformers_old",
        STATED,
        r"Transformers does not recognize this architecture",
        r"your version of Transformers is out of date",
        r"KeyError: ['\"](?:mistral\w*|ministral\w*|pixtral|voxtral|llava\w*|qwen\w+|gemma\w+|phi\w*"
        r"|\w+moe)['\"]",
        r"cannot import name '\w+' from 'transformers",
        r"module '?transformers\S* has no attribute",
        r"(?<!pip.)\b(?:requires?|install|upgrade|update)\b.{0,30}\btransformers\b ?(?:>|=|~|from|to|version"
        r"|library|\d)",
        r"transformers\b.{0,20}(?:version|>=).{0,40}(?:required|too old|needed|or (?:higher|later|newer))",
        r"`rope_scaling` must be a dictionary with",
        r"Tokenizer class (?:TokenizersBackend|MistralCommon\w*|\w+) does not exist or is not currently imported",
        r"untagged enum (?:ModelWrapper|PreTokenizerWrapper|\w+Wrapper)",
        r"No module named 'transformers\.",
    ),
    sign(
        "transformers_api",
        STATED,
        r"Unrecognized configuration class|KeyError: <class 'transformers\.models\.",
        r"(?:TypeError|ValueError): \S+ isn'?t supported yet",
        r"'\w+Config' object has no attribute",
        r"(?:forward|generate|__init__)\(\) got an unexpected keyword argument '(?:pixel_values|input_ids|image\w*"
        r"|attention_mask)'",
        r"does not support `?device_map",
        r"no attribute '(?:generate|lm_head|language_model|vision_tower|get_input_embeddings)'",
        r"for this kind of AutoModel",
        r"The model class you are passing has a `?config_class",
        r"does not support (?:Flash ?Attention|an attention implementation)",
        unless=r"tekken|tokenizer_mode",
    ),
    sign(
        "transformers_api", HINT, r"Some weights of .* (?:were not used|newly initialized)", r"Unrecognized processing"
    ),
    sign("transformers_api", 0.45, r"Unrecognized model in "),
    sign(
        "version_backend_old",
        STATED,
        r"requires a newer version of (?:Ollama|vLLM|llama)",
        r"not supported by your version of",
        r"manifest: 412|\b412\b.{0,40}(?:Precondition|Ollama|newer)",
        r"requires (?:Ollama|vLLM|llama\.cpp|at least version) (?:version )?v?\d",
        r"(?:please )?(?:upgrade|update) (?:your )?(?:to (?:the|a) (?:latest|newer) (?:version of )?)?(?:Ollama"
        r"|vLLM|llama\.cpp|mistral\.?rs)",
        r"(?:vllm|ollama)\b ?>= ?\d\S*.{0,40}(?:required|needed)",
        r"client version is \S+",
    ),
    sign("version_backend_old", STRONG, r"`?limit_mm_per_prompt`? is only supported for multimodal"),
    sign(
        "version_backend_old", 0.55, r"are not supported for now", r"(?:newer|latest) version of (?:vLLM|Ollama|llama)"
    ),
    sign("version_backend_old", TRACE, r"unknown model architecture|has no vLLM implementation"),
    sign(
        "unknown_arch",
        STATED,
        r"unknown (?:model |GGUF )?arch(?:itecture)?\b",
        r"(?:[Uu]nsupported|[Uu]nrecognized|not support\w*|Unknown) (?:model )?architecture",
        r"(?:Model )?[Aa]rchitectures? \S.{0,80}(?:not supported|unsupported|is not (?:known|implemented|recognized))",
        r"has no vLLM implementation",
        r"Unsupported .{0,40}model (?:class|type|architecture)",
        r"Model \w+(?:ForCausalLM|ForConditionalGeneration) is not supported",
        unless=r"Transformers does not recognize|GGUF model with architecture",
    ),
    sign(
        "unknown_arch",
        HINT,
        r"unable to load model: \S*blobs",
        r"failed to be inspected",
        r"error loading model architecture",
    ),
    sign(
        "gguf_unsupported",
        STATED,
        r"Unknown gguf model_type|GGUF model with architecture \S+ is not supported",
        r"unknown pre-tokenizer type|wrong number of tensors|missing tensor|invalid ggml type|done_getting_tensors: "
        r"wrong",
        r"unsupported GGUF version|GGUF (?:file )?version \S+ (?:is )?(?:not supported|unsupported|but)",
        r"GGUFv\d.*not supported",
        r"key not found in model|tensor '\S+' has wrong shape",
        r"Failed to map GGUF|is not a valid GGML\w+Type",
        r"\bGGUF\b.{0,60}(?:not (?:yet )?supported|unsupported|cannot be (?:loaded|served))",
        r"(?:does not|doesn'?t|cannot|can'?t) (?:support|load|serve|read)\b.{0,40}\bGGUF",
        r"(?:sharded|split) GGUF|not GGUF or is not compatible",
        r"weight format that is no longer supported",
        unless=r"unknown model architecture|invalid magic",
    ),
    sign("gguf_unsupported", LIKELY, r"error loading model hyperparameters", unless=r"unknown model arch"),
)

SIGNS = (*_BINARIES, *_PYTHON, *_MODELS)
