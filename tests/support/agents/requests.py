"""First requests of coding agents, of our own making: their roles, kinds of content, schemas and fields are those of
recorded ones, their words are not. The versions that were recorded stand in docs/how-to/agents.md.

Each also offers get_weather, which the scripted model calls; without it the model would make up arguments for another
tool, to no end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
ASKED = "What is the weather in Paris? Use a tool."
RULES = "You are a coding agent. Read a file before you change it, and say what you changed. " * 8
SHORT = "The folder is /work. Today is Monday."
WEATHER = "get_weather"
DIGITS = 9_007_199_254_740_991
TEXT: dict[str, Any] = {"type": "string"}
WHOLE: dict[str, Any] = {"type": "integer"}
NUMBER: dict[str, Any] = {"type": "number"}
SWITCH: dict[str, Any] = {"type": "boolean"}
NOTHING: dict[str, Any] = {"type": "object", "properties": {}}
COUNTED: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}


@dataclass(frozen=True)
class Replayed:
    """One request. `calls`: whether it carries tools and is a first turn, so that a call must come back."""

    agent: str
    body: dict[str, Any]
    path: str = CHAT
    calls: bool = True


def fields(*required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


CITY = fields("city", city=TEXT)


def strict(*required: str, **properties: Any) -> dict[str, Any]:
    return {**fields(*required, **properties), "additionalProperties": False}


def tool(name: str, parameters: dict[str, Any], **more: Any) -> dict[str, Any]:
    about = {"name": name, "description": f"Use this to {name.replace('_', ' ')}.", "parameters": parameters, **more}
    return {"type": "function", "function": about}


def flat(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return {**tool(name, parameters, strict=False)["function"], "type": "function"}


def parts(*texts: str, kind: str = "text") -> list[dict[str, str]]:
    return [{"type": kind, "text": text} for text in texts]


def said(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def list_of(item: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": item, **more}


def or_null(kind: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [kind, {"type": "null"}]}


def _opencode() -> list[dict[str, Any]]:
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    made = {
        "bash": fields("command", command=TEXT, timeout={**WHOLE, "minimum": -DIGITS, "exclusiveMinimum": 0,
                                                         "maximum": DIGITS}),
        "edit": fields("filePath", "oldString", "newString", filePath=TEXT, oldString=TEXT, newString=TEXT,
                       replaceAll=SWITCH),
        "todowrite": fields("todos", todos=list_of(fields("content", content=TEXT, status=TEXT))),
        "webfetch": fields("url", url=TEXT, format={**TEXT, "enum": ["text", "markdown"], "default": "markdown"}),
    }  # fmt: skip
    return [tool(name, {**dialect, **schema}) for name, schema in {**made, WEATHER: CITY}.items()]


def _vibe() -> list[dict[str, Any]]:
    titled = {**TEXT, "title": "Text"}
    item = fields("id", id=titled, status={"$ref": "#/$defs/TodoStatus", "default": "pending"})
    todo = {
        **fields("action", action={**titled, "enum": ["read", "write"]},
                 todos={**or_null(list_of({"$ref": "#/$defs/TodoItem"})), "default": None, "title": "Todos"}),
        "$defs": {"TodoItem": {**item, "title": "TodoItem"}, "TodoStatus": {**titled, "enum": ["pending", "done"]}},
        "title": "TodoArguments",
    }  # fmt: skip
    named = list_of({**TEXT, "minLength": 1}, maxItems=10)
    return [
        tool("search_functions", strict(mode={**TEXT, "enum": ["best", "all"], "default": "best"}, names=named)),
        tool("wait", strict("timeout_ms", timeout_ms={**WHOLE, "minimum": 1, "maximum": 3_600_000})),
        tool("read_file", strict("path", path=TEXT, limit={"type": ["integer", "null"], "default": None})),
        tool("todo", todo),
        tool(WEATHER, {**CITY, "additionalProperties": False}),
    ]


def _codex() -> list[dict[str, Any]]:
    inner = [flat("close_agent", strict("target", target=TEXT)),
             flat("spawn_agent", strict(items=list_of(strict(text=TEXT, path=TEXT)), message=TEXT))]  # fmt: skip
    asked = strict("id", "options", id=TEXT, options=list_of(strict("label", label=TEXT)))
    return [
        flat("exec_command", strict("cmd", cmd=TEXT, yield_time_ms=NUMBER, prefix_rule=list_of(TEXT), tty=SWITCH)),
        flat("request_user_input", strict("questions", questions=list_of(asked))),
        {"type": "namespace", "name": "agents", "description": "Other agents.", "tools": inner},
        flat("get_goal", strict()),
        flat(WEATHER, {**CITY, "additionalProperties": False}),
        {"type": "web_search", "external_web_access": False},
    ]


def _pi() -> dict[str, dict[str, Any]]:
    change = strict("oldText", "newText", oldText=TEXT, newText=TEXT)
    return {
        "read": fields("path", path=TEXT, offset=NUMBER, limit=NUMBER),
        "bash": fields("command", command=TEXT, timeout=NUMBER),
        "edit": strict("path", "edits", path=TEXT, edits=list_of(change)),
        WEATHER: CITY,
    }


def _cline() -> list[dict[str, Any]]:
    line = or_null({**WHOLE, "exclusiveMinimum": 0, "maximum": DIGITS})
    file = strict("path", path=TEXT, start_line=line, end_line=line)
    return [
        tool("read_files", strict("files", files=list_of(file, minItems=1))),
        tool("editor", strict("path", path={**TEXT, "minLength": 1}, old_text=or_null(TEXT), new_text=TEXT)),
        tool("team_status", {**NOTHING, "additionalProperties": False}),
        tool(WEATHER, CITY),
    ]  # fmt: skip


def _qwen() -> list[dict[str, Any]]:
    where = {"oneOf": [TEXT, list_of(TEXT)]}
    return [
        tool("read_file", fields("path", path={**TEXT, "pattern": "^/"}, limit={"type": ["integer", "null"]})),
        tool("search", fields("where", where=where, include={"type": ["string", "null"]})),
        tool("remember", {"type": "object", "properties": {"fact": {"description": "of any kind"}}}),
        tool(WEATHER, CITY),
    ]


def _gptme() -> list[dict[str, Any]]:
    return [
        tool("shell", strict("command", command=TEXT, background=SWITCH)),
        tool("recall", strict("result_id", result_id=WHOLE, max_chars=WHOLE)),
        tool("complete", {**NOTHING, "required": [], "additionalProperties": False}),
        tool(WEATHER, {**CITY, "additionalProperties": False}),
    ]


def _responses() -> dict[str, Any]:
    """Codex: two developer messages, two of the user, and tools of three kinds."""
    first = [
        said("developer", parts(RULES, kind="input_text"), type="message", id="msg_1"),
        said("developer", parts(SHORT, SHORT, kind="input_text"), type="message", id="msg_2"),
        said("user", parts(SHORT, kind="input_text"), type="message", id="msg_3"),
        said("user", parts(ASKED, kind="input_text"), type="message", id="msg_4"),
    ]
    return {
        "stream": True, "input": first, "tools": _codex(), "tool_choice": "auto", "parallel_tool_calls": True,
        "reasoning": {"summary": "auto"}, "store": False, "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "key", "client_metadata": {"turn_id": "1"},
    }  # fmt: skip


def _responses_after_a_call() -> dict[str, Any]:
    first = _responses()
    call = {"type": "function_call", "name": "exec_command", "arguments": '{"cmd": "date"}', "call_id": "call_1"}
    result = {"type": "function_call_output", "call_id": "call_1", "output": "Monday"}
    return {**first, "input": [*first["input"], call, result]}


def _anthropic() -> dict[str, Any]:
    """pi and Claude Code: marks of a cache on system, message and tool."""
    kept = {"cache_control": {"type": "ephemeral"}}
    tools = [{"name": name, "description": f"To {name}.", "input_schema": schema} for name, schema in _pi().items()]
    content = [{**part, **kept} for part in parts(ASKED)]
    system = [{**part, **kept} for part in parts(RULES)]
    return {
        "system": system, "messages": [said("user", content)], "tools": [*tools[:-1], {**tools[-1], **kept}],
        "max_tokens": 256, "stream": True,
    }  # fmt: skip


def _anthropic_after_a_call() -> dict[str, Any]:
    first = _anthropic()
    use = {"type": "tool_use", "id": "toolu_1", "name": "bash", "input": {"command": "date"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": parts("Monday")}
    return {**first, "messages": [*first["messages"], said("assistant", [use]), said("user", [result])]}


def _chat(*messages: dict[str, Any], tools: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    return {"messages": list(messages), **({"tools": tools} if tools else {}), **COUNTED, **more}


_SYSTEM, _USER, _LIST = said("system", RULES), said("user", ASKED), said("user", parts(ASKED))
_PI_TOOLS = [tool(name, schema, strict=False) for name, schema in _pi().items()]
_CALLED = {"id": "call_0123456789abcdef", "type": "function",
           "function": {"name": "bash", "arguments": '{"command": "date"}'}}  # fmt: skip
_AFTER = (said("assistant", None, tool_calls=[_CALLED]),
          said("tool", parts("Monday"), tool_call_id=_CALLED["id"]))  # fmt: skip

REPLAYED = (
    Replayed("aichat", {"messages": [said("user", "Hello")], "stream": True}, calls=False),
    Replayed(
        "aider",
        {"messages": [_SYSTEM, *(said(role, SHORT) for role in ("user", "assistant") * 4), _USER], "stream": True,
         "temperature": 0},
        calls=False,
    ),
    Replayed("cline", _chat(_SYSTEM, _USER, tools=_cline(), tool_choice="auto")),
    Replayed("codex", _responses(), RESPONSES),
    Replayed("codex, after a call", _responses_after_a_call(), RESPONSES, calls=False),
    Replayed("continue", _chat(_SYSTEM, _USER, tools=[tool("Exit", NOTHING), *_PI_TOOLS], max_tokens=256)),
    Replayed(
        "gptme",
        _chat(said("system", parts(RULES)), said("system", parts(SHORT)), said("system", parts(SHORT)), _LIST,
              tools=_gptme(), temperature=0.0, top_p=0.1),
    ),
    Replayed(
        "llm", _chat(said("user", "Weather?"), tools=[tool(WEATHER, CITY)])
    ),
    Replayed("opencode", _chat(_SYSTEM, _USER, tools=_opencode(), tool_choice="auto", max_tokens=256)),
    Replayed("opencode's title", _chat(_SYSTEM, said("user", "A title for this:"), _USER, max_tokens=256), calls=False),
    Replayed("pi", _chat(_SYSTEM, _LIST, tools=_PI_TOOLS, store=False, max_completion_tokens=256)),
    Replayed("pi, after a call", _chat(_SYSTEM, _LIST, *_AFTER, tools=_PI_TOOLS, store=False), calls=False),
    Replayed("claude", _anthropic(), MESSAGES),
    Replayed("claude, after a call", _anthropic_after_a_call(), MESSAGES, calls=False),
    Replayed("qwen", _chat(_SYSTEM, _LIST, tools=_qwen(), max_tokens=256)),
    Replayed("vibe", _chat(_SYSTEM, _USER, tools=_vibe(), temperature=0.2, max_tokens=256)),
)  # fmt: skip
