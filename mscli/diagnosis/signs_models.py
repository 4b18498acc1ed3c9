"""Signs of what an engine or library does not know: model types, architectures, GGUF files, the release it is of."""

from __future__ import annotations

from mscli.diagnosis.signs import HINT, LIKELY, STATED, STRONG, TRACE, sign

SIGNS = (
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
        r"error loading model architecture",
    ),
    sign("unknown_arch", TRACE, r"failed to be inspected"),
    sign("python_env", 0.32, r"failed to be inspected"),
    sign(
        "gguf_unsupported",
        STATED,
        r"Unknown gguf model_type|GGUF model with architecture \S+ is not supported",
        r"unknown pre-tokenizer type|wrong number of tensors|missing tensor|invalid ggml type|done_getting_tensors: "
        r"wrong",
        r"unsupported GGUF version|GGUF (?:file )?version \S+ (?:is )?(?:not supported|unsupported|but)",
        r"GGUFv\d.*not supported",
        r"[Cc]annot find tensor|unable to find tensor|tensor '?\S+ (?:is missing|not found)",
        r"key not found in model|tensor '\S+' has wrong shape",
        r"Failed to map GGUF|is not a valid GGML\w+Type",
        r"\bGGUF\b.{0,60}(?:not (?:yet )?supported|unsupported|cannot be (?:loaded|served))",
        r"(?:does not|doesn'?t|cannot|can'?t) (?:support|load|serve|read)\b.{0,40}\bGGUF",
        r"(?:sharded|split) GGUF|not GGUF or is not compatible",
        r"weight format that is no longer supported",
        unless=r"unknown model architecture|invalid magic",
    ),
    sign("gguf_unsupported", LIKELY, r"error loading model hyperparameters", unless=r"unknown model arch"),
    sign("transformers_old", 0.65, r"[Uu]nknown (?:RoPE|rope) (?:scaling )?type"),
    sign(
        "transformers_api",
        LIKELY,
        r"(?:AutoAWQ|auto_?gptq|gptqmodel|exllama\w*|unsloth|ctransformers|awq)\b.{0,80}(?:not support|unsupported)",
        r"(?:Missing|Unexpected) key\(s\) in state_dict|Can'?t instantiate a processor",
    ),
    sign("transformers_api", 0.45, r"You are using a model of type \w+ to instantiate a model of type"),
    sign("version_backend_old", STRONG, r"requires? a (?:newer|more recent|later) version"),
    # What a current llama-server takes, and another one calls unknown.
    sign(
        "version_backend_old",
        HINT,
        r"(?:invalid|unknown) argument: (?:-hf|-hfr|--hf-repo|--jinja|--mmproj\S*|-fa|--flash-attn|--n-cpu-moe|--fit\S*"
        r"|--cache-ram|--reasoning\S*|--kv-unified|--no-context-shift)",
        r"wrong number of tensors",
    ),
    sign(
        "gguf_unsupported",
        0.97,
        r"(?:modeling_gguf|load_gguf_checkpoint|gguf_file)\S*.{0,400}?not supported",
    ),
    sign(
        "gguf_unsupported",
        STATED,
        r"unknown tensor '|unknown (?:ggml )?dtype|unsupported ggml dtype|invalid split file|illegal split",
        r"magic (?:number |characters:? )?'?(?:67676a74|67676d6c|67676d66|tjgg|lmgg|fmgg)",
        r"is this really a GGML file|old (?:GGML|GGUF) (?:file|format)|(?:GGJT|ggml) .{0,30}(?:too old|old format)",
        unless=r"unknown model architecture",
    ),
)
