"""The agents that `mscli launch` connects, as data: what each reads, how much context it needs, what it speaks.

Measured by running each (but for Claude Code) against an instance on loopback, with an empty home and with one that
holds the user's own configuration. Texts are templates (`string.Template`) of launch.values: `$model` as it is,
`$q_model` as a JSON string.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from mscli.frozen import frozen

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"


@frozen
class Agent:
    """One agent. `program`: its name on PATH; `install`: the command that brings it.

    `argv`, `env`, `files`: what it is given; files are written to `$folder`, which is the instance's own. `unset`: what
    of the user's environment would lead it elsewhere. `speaks`: the endpoint it needs. `least_context`: with less, its
    first request does not fit, or nothing is left for the answer. `when_small`: also given where the context is below
    AGENT_CONTEXT. `needs_tools`: useless on an instance without tool calls. `tried`: whether it was run.
    """

    title: str
    program: str
    install: str
    least_context: int
    argv: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    unset: tuple[str, ...] = ()
    speaks: str = CHAT
    when_small: Mapping[str, str] = field(default_factory=dict)
    needs_tools: bool = True
    tried: bool = True


AGENT_CONTEXT = 32_768
"""Tokens with which every agent can work for several turns."""
_OPENAI = {"OPENAI_BASE_URL": "$base", "OPENAI_API_KEY": "$key"}

AGENTS: Mapping[str, Agent] = {
    "vibe": Agent(
        "Mistral Vibe",
        "vibe",
        "uv tool install mistral-vibe",
        16_384,  # its own estimate of its first request is 12,000: with 12,288 an answer may have 231 tokens
        env={
            "VIBE_PROVIDERS": """[{"name": "mscli", "api_base": $q_base, "api_style": "openai", "backend": "generic",
 "api_key_env_var": "MSCLI_KEY"}]""",
            "VIBE_MODELS": """[{"name": $q_model, "provider": "mscli", "alias": "mscli", "temperature": $temperature,
 "max_context_length": $context, "supports_images": $images}]""",
            "VIBE_ACTIVE_MODEL": "mscli",
            "VIBE_ENABLE_TELEMETRY": "false",
            "VIBE_ENABLE_UPDATE_CHECKS": "false",
            "MSCLI_KEY": "$key",
        },
    ),
    "opencode": Agent(
        "opencode",
        "opencode",
        "npm install -g opencode-ai",
        16_384,
        env={
            "OPENCODE_CONFIG_CONTENT": """{"model": $q_served, "small_model": $q_served, "autoupdate": false,
 "share": "disabled", "provider": {"mscli": {"npm": "@ai-sdk/openai-compatible", "name": "mscli",
 "options": {"baseURL": $q_base, "apiKey": "{env:MSCLI_KEY}"}, "models": {$q_model: {"name": $q_model,
 "tool_call": true, "limit": {"context": $context, "output": $output}}}}}}""",
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
            "MSCLI_KEY": "$key",
        },
        # A request that is too long makes it compact and ask again, without end.
        when_small={"OPENCODE_DISABLE_AUTOCOMPACT": "1"},
    ),
    "codex": Agent(
        "Codex",
        "codex",
        "npm install -g @openai/codex",
        16_384,
        argv=(
            "-c",
            "model=$q_model",
            "-c",
            "model_provider=mscli",
            "-c",
            "model_context_window=$context",
            "-c",
            'model_providers.mscli={name="mscli",base_url=$q_base,env_key="MSCLI_KEY",wire_api="responses"}',
            "-c",
            "check_for_update_on_startup=false",
            "-c",
            "analytics.enabled=false",
        ),
        env={"MSCLI_KEY": "$key"},
        speaks=RESPONSES,
    ),
    "pi": Agent(
        "pi",
        "pi",
        "npm install -g @mariozechner/pi-coding-agent",
        24_576,  # it keeps 16,384 in reserve: with less it compacts after each answer
        argv=("-e", "$folder/mscli.js", "--provider", "mscli", "--model", "$model"),
        env={"PI_OFFLINE": "1", "PI_TELEMETRY": "0", "MSCLI_KEY": "$key"},
        files={
            "mscli.js": """\
export default function (pi) {
  pi.registerProvider("mscli", {
    baseUrl: $q_base, apiKey: "MSCLI_KEY", api: "openai-completions",
    models: [{
      id: $q_model, name: $q_model, reasoning: false, input: $input, contextWindow: $context, maxTokens: $output,
      cost: { input: 0, output: 0, cacheRead: 0, cacheWrite: 0 },
    }],
  });
  // A request that stays too long after it was compacted: with -p, pi would end with nothing said and exit status 0.
  let compacted = false, fault;
  pi.on("session_before_compact", () => { compacted = true; });
  pi.on("message_end", ({ message }) => {
    if (message.role === "assistant") fault = message.stopReason === "error" ? message.errorMessage : undefined;
  });
  pi.on("session_shutdown", (_, ctx) => {
    if (compacted && fault && !ctx.hasUI) { console.error(fault); process.exitCode = 1; }
  });
}
"""
        },
    ),
    "qwen": Agent(
        "Qwen Code",
        "qwen",
        "npm install -g @qwen-code/qwen-code",
        24_576,
        argv=("--auth-type", "openai", "-m", "$model"),
        env={**_OPENAI, "QWEN_CODE_SYSTEM_SETTINGS_PATH": "$folder/settings.json"},
        unset=("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"),  # it asks a proxy for loopback too
        # In milliseconds; of its own it gives up and asks again after two minutes, which a long prompt can take.
        files={
            "settings.json": """\
{"security": {"auth": {"selectedType": "openai"}}, "privacy": {"usageStatisticsEnabled": false},
 "general": {"disableAutoUpdate": true, "disableUpdateNag": true},
 "model": {"name": $q_model, "generationConfig": {"contextWindowSize": $context, "timeout": 600000,
  "samplingParams": {"max_tokens": $output, "temperature": $temperature}}}}
"""
        },
    ),
    "continue": Agent(
        "Continue",
        "cn",
        "npm install -g @continuedev/cli",
        16_384,  # told 4,096 it cuts its own prompt and asks again, without end
        argv=("--config", "$folder/config.yaml"),
        env={"CONTINUE_GLOBAL_DIR": "$folder/state", "CONTINUE_TELEMETRY_ENABLED": "0", "MSCLI_KEY": "$key"},
        files={
            "config.yaml": """\
{"name": "mscli", "version": "1.0.0", "schema": "v1", "models": [{"name": $q_model, "provider": "openai",
 "model": $q_model, "apiBase": $q_base, "apiKey": $q_key, "roles": ["chat", "edit", "apply"],
 "capabilities": ["tool_use"], "defaultCompletionOptions": {"contextLength": $context, "maxTokens": $output}}]}
"""
        },
    ),
    "aider": Agent(
        "aider",
        "aider",
        "uv tool install --python 3.12 aider-chat",
        8_192,
        env={
            "OPENAI_API_BASE": "$base",
            "OPENAI_API_KEY": "$key",
            "AIDER_MODEL": "openai/$model",
            "AIDER_MODEL_METADATA_FILE": "$folder/metadata.json",
            "AIDER_CHECK_UPDATE": "false",
            "AIDER_ANALYTICS_DISABLE": "true",
            "AIDER_GITIGNORE": "false",
            "AIDER_INPUT_HISTORY_FILE": "$folder/input.history",
            "AIDER_CHAT_HISTORY_FILE": "$folder/chat.history.md",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it fetches prices at each start
        },
        files={
            "metadata.json": """\
{"openai/$model": {"max_input_tokens": $context, "max_output_tokens": $output, "input_cost_per_token": 0,
 "output_cost_per_token": 0, "litellm_provider": "openai", "mode": "chat"}}
"""
        },
        needs_tools=False,  # edits come as text
    ),
    "gptme": Agent(
        "gptme",
        "gptme",
        "uv tool install gptme",
        16_384,
        argv=("-m", "local/$model"),
        env=_OPENAI,
    ),
    "llm": Agent(
        "llm",
        "llm",
        "uv tool install llm",
        2_048,
        env={"LLM_USER_PATH": "$folder"},
        files={
            "extra-openai-models.yaml": """\
[{"model_id": "mscli", "model_name": $q_model, "api_base": $q_base, "api_key_name": "mscli",
  "supports_tools": $tools, "vision": $images}]
""",
            "keys.json": """{"mscli": $q_key}\n""",
            "default_model.txt": "mscli",
        },
        needs_tools=False,
    ),
    "aichat": Agent(
        "aichat",
        "aichat",
        "cargo install aichat --locked",
        2_048,
        env={"AICHAT_CONFIG_DIR": "$folder"},
        files={
            "config.yaml": """\
{"model": "mscli:$model", "temperature": $temperature, "clients": [{"type": "openai-compatible", "name": "mscli",
 "api_base": $q_base, "api_key": $q_key, "models": [{"name": $q_model, "max_input_tokens": $context,
 "supports_vision": $images, "supports_function_calling": $tools}]}]}
"""
        },
        needs_tools=False,
    ),
    "claude": Agent(
        "Claude Code",
        "claude",
        "npm install -g @anthropic-ai/claude-code",
        32_768,
        env={
            "ANTHROPIC_BASE_URL": "$root",
            "ANTHROPIC_AUTH_TOKEN": "$key",
            "ANTHROPIC_MODEL": "$model",
            "ANTHROPIC_DEFAULT_OPUS_MODEL": "$model",
            "ANTHROPIC_DEFAULT_SONNET_MODEL": "$model",
            "ANTHROPIC_DEFAULT_HAIKU_MODEL": "$model",
            "CLAUDE_CODE_MAX_OUTPUT_TOKENS": "$output",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
        },
        unset=("ANTHROPIC_API_KEY", "CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX"),
        speaks=MESSAGES,
        tried=False,
    ),
}
