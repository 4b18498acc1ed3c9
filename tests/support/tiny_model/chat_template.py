"""The Jinja chat template of the tiny models, after Mistral's own.

In a GGUF it refuses what theirs refuses, by the template that mistral_common generates for the tokenizer's version; and
it loses the tools where theirs, as llama.cpp has it, loses them.
"""

from __future__ import annotations

_TEMPLATE = """\
{{- bos_token }}
{%- set conversation = messages %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] %}
    {%- set conversation = messages[1:] %}
    {{- '[SYSTEM_PROMPT]' + (system if system is string else system[0]['text']) + '[/SYSTEM_PROMPT]' }}
{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- set questions = conversation | selectattr('role', 'equalto', 'user') | list %}
{%- for message in conversation %}
    {%- if message['role'] == 'user' %}
        {%- if tools is not none and (message == questions[-1]) %}
            {{- '[AVAILABLE_TOOLS]' + tools|tojson + '[/AVAILABLE_TOOLS]' }}
        {%- endif %}
        {{- '[INST]' }}
        {%- if message['content'] is string %}
            {{- message['content'] }}
        {%- else %}
            {%- for block in message['content'] %}
                {%- if block['type'] == 'text' %}
                    {{- block['text'] }}
                {%- elif block['type'] in ['image', 'image_url'] %}
                    {{- '[IMG]' }}
                {%- endif %}
            {%- endfor %}
        {%- endif %}
        {{- '[/INST]' }}
    {%- elif message['role'] == 'assistant' %}
        {%- if message.get('tool_calls') %}
@CALLS@
        {%- elif message['content'] is string %}
            {{- message['content'] }}
        {%- else %}
            {%- for block in message['content'] %}
                {%- if block['type'] == 'text' %}
                    {{- block['text'] }}
                {%- endif %}
            {%- endfor %}
        {%- endif %}
        {{- eos_token }}
    {%- elif message['role'] == 'tool' %}
@RESULT@
    {%- endif %}
{%- endfor %}"""

_STRICT = """\
{%- set follows = {
    'none': ['user', 'system'],
    'system': ['user', 'assistant', 'system'],
    'user': ['user', 'assistant', 'system'],
    'assistant': ['user', 'assistant', 'tool'],
    'tool': ['user', 'assistant', 'tool'],
} %}
{%- set order = namespace(before='none') %}
{%- for message in messages %}
    {%- set role = message['role'] %}
    {%- if role not in ['user', 'assistant', 'system', 'tool'] %}
        {{- raise_exception('Only user, assistant, system and tool roles are supported, got ' + role + '.') }}
    {%- elif role not in follows[order.before] %}
        {{- raise_exception('Conversation roles must alternate: unexpected role ' + role + ' after ' + order.before) }}
    {%- endif %}
    {%- set order.before = role %}
    {%- if role == 'assistant' and not message['content'] and not message.get('tool_calls') %}
        {{- raise_exception('Assistant message must have content or tool calls.') }}
    {%- endif %}
    {%- if role != 'tool' and message['content'] and message['content'] is not string %}
        {%- for block in message['content'] %}
            {%- if block['type'] != 'text' and not (role == 'user' and block['type'] in ['image', 'image_url']) %}
                {{- raise_exception('Only text, image and image_url chunks are supported, got ' + block['type']) }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
@IDS@{%- endfor %}
"""

# Up to v11; later tokenizers have no ids in their prompts.
_IDS = """\
    {%- for call in message.get('tool_calls') or [] %}
        {%- if not call.get('id') or call['id']|length != 9 %}
            {{- raise_exception('Tool call must have an id of 9 characters or numbers.') }}
        {%- endif %}
    {%- endfor %}
    {%- if role == 'tool' and (not message.get('tool_call_id') or message['tool_call_id']|length != 9) %}
        {{- raise_exception('Tool message must have a tool_call_id of 9 characters or numbers.') }}
    {%- endif %}
"""

_ARGUMENTS = "(call.function.arguments if call.function.arguments is string else call.function.arguments|tojson)"

_CALLS = {
    "v7": """\
            {{- '[TOOL_CALLS][' }}
            {%- for call in message.tool_calls %}
                {{- '{"name": "' + call.function.name + '", "arguments": ' + @ARGUMENTS@ + '}' }}
                {%- if not loop.last %}{{- ', ' }}{%- endif %}
            {%- endfor %}
            {{- ']' }}""",
    "v11": """\
            {%- for call in message.tool_calls %}
                {{- '[TOOL_CALLS]' + call.function.name + '[ARGS]' + @ARGUMENTS@ }}
            {%- endfor %}""",
}

_RESULTS = {
    "v7": "'[TOOL_RESULTS]' + message.tool_call_id|string + '[TOOL_CONTENT]' + message.content|string",
    "v11": "'[TOOL_RESULTS]' + message.content|string",
}


def chat_template(tool_syntax: str) -> str:
    """The template for tool syntax v7 or v11."""
    calls = _CALLS[tool_syntax].replace("@ARGUMENTS@", _ARGUMENTS)
    result = f"        {{{{- {_RESULTS[tool_syntax]} + '[/TOOL_RESULTS]' }}}}"
    return _TEMPLATE.replace("@CALLS@", calls).replace("@RESULT@", result)


def strict_template(tool_syntax: str, version: str) -> str:
    """The same, which refuses what Mistral's own does for a tokenizer of this version."""
    return _STRICT.replace("@IDS@", _IDS if int(version[1:]) < 13 else "") + chat_template(tool_syntax)
