"""The Jinja chat template of the tiny models, after Mistral's own."""

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
