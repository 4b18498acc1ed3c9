"""The chat templates, held to mistral_common token for token, and what they make of what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import Any

import jinja2
import pytest
from mistral_common.integrations.chat_templates.chat_templates import generate_chat_template
from mistral_common.tokens.tokenizers.base import TokenizerVersion
from support.templates.conversations import PICTURE, Maker, Message, with_parsed_arguments
from support.templates.reference import Refused, reference
from support.templates.rendering import render

from mscli.engines.templates import chat_template

KINDS = (("v7", "none"), ("v11", "none"), ("v13", "none"), ("v13", "think-tokens"))
SEEDS = range(200)
TOOL: Message = {"type": "function", "function": {"name": "look", "description": "Look", "parameters": {}}}
OFFERED = f"[AVAILABLE_TOOLS]{json.dumps([TOOL])}[/AVAILABLE_TOOLS]"


def user(content: Any) -> Message:
    return {"role": "user", "content": content}


def said(content: Any, **more: Any) -> Message:
    return {"role": "assistant", "content": content, **more}


def call(call_id: str, name: str = "look") -> Message:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": {}}}


def result(call_id: str | None, content: Any = "seen") -> Message:
    return {"role": "tool", "content": content, **({"tool_call_id": call_id} if call_id else {})}


@cache
def encoded(version: str, *, thoughts: bool) -> dict[int, tuple[list[Message], list[Message], list[int]]]:
    """Conversations that mistral_common accepts, by their seed: messages as engines hand them over, tools, tokens."""
    accepted = {}
    for seed in SEEDS:
        messages, tools = Maker(seed, thoughts=thoughts).conversation()
        with suppress(Refused):
            accepted[seed] = with_parsed_arguments(messages), tools, reference(version).encode(messages, tools)
    return accepted


def differing(template: str, version: str, *, thoughts: bool) -> Iterator[int]:
    """The seeds of conversations whose prompt is not what mistral_common encodes."""
    for seed, (messages, tools, tokens) in encoded(version, thoughts=thoughts).items():
        if reference(version).tokens(render(template, messages, tools)) != tokens:
            yield seed


@pytest.mark.parametrize(("version", "reasoning"), KINDS, ids=str)
def test_prompts_have_the_tokens_that_mistral_common_encodes(version: str, reasoning: str) -> None:
    thoughts = reasoning != "none"

    assert len(encoded(version, thoughts=thoughts)) > 150
    assert list(differing(chat_template(version, reasoning), version, thoughts=thoughts)) == []


# What a slip of the pen would change, and the tokenizer version whose conversations show it.
SLIPS = (
    ("v7", "'[TOOL_CALLS]['", "'[TOOL_CALLS] ['"),
    ("v7", "'\\n\\n' if ns.texts", "'\\n' if ns.texts"),
    ("v7", "ns.asked == turns.user", "ns.asked == 1"),
    ("v7", "ns.tail ~ ns.before if", "ns.body if"),
    ("v7", "ns.body.rstrip(' ')", "ns.body"),
    ("v7", ', "id": \'', ', "call_id": \''),
    ("v7", "role != ns.turn or role == 'system'", "role != ns.turn"),
    ("v7", "ns.images == 1 and ns.tail", "ns.tail"),
    ("v7", "~ '[TOOL_CONTENT]' ~", "~"),
    ("v7", '"description": \' ~ (tool.function.description or \'\')', '"description": \' ~ \'\''),
    ("v11", "'[CALL_ID]' ~", ""),
    ("v11", "'[ARGS]' ~", ""),
    ("v11", "{%- for id in ns.ids -%}", "{%- for id in [] -%}"),
    ("v11", "{{- eos_token -}}", ""),
    ("v11", "'[/TOOL_RESULTS]'", "''"),
    ("v13", "ns.asked == 1", "ns.asked == turns.user"),
    ("v13", "'[TOOL_RESULTS]' ~ ns.body", "'[TOOL_RESULTS]' ~ short(message['tool_call_id']) ~ ns.body"),
    ("v13", "{{- ', ' if not loop.last -}}", ""),
    ("v13", "'' if block['closed'] is false else", "''  ~"),
    ("v13", "{{- ns.body if ns.thought else ns.body.rstrip(' ') -}}", "{{- ns.body.rstrip(' ') -}}"),
)  # fmt: skip


@pytest.mark.parametrize(("version", "right", "wrong"), SLIPS, ids=lambda word: word[:40])
def test_a_slip_in_a_template_is_found(version: str, right: str, wrong: str) -> None:
    template = chat_template(version, "think-tokens" if version == "v13" else "none")
    assert right in template

    assert any(True for _ in differing(template.replace(right, wrong), version, thoughts=version == "v13"))


def test_thoughts_in_plain_text_stand_as_mistral_commons_own_template_puts_them() -> None:
    theirs = generate_chat_template(
        spm=False, tokenizer_version=TokenizerVersion.v11, image_support=False, audio_support=False,
        thinking_support=False, default_system_prompt=None, plain_thinking_support=True,
        use_special_token_variables=True, model_settings_fields=None, reasoning_effort_values=None,
        reasoning_effort_default=None,
    )  # fmt: skip
    messages = [user("Hello"), said("Hi.", reasoning_content="They greet."), user("And now?")]

    ours = render(chat_template("v11", "think-text"), messages)
    assert ours == render(theirs, messages)
    assert "<think>They greet.</think>Hi.</s>" in ours


@pytest.mark.parametrize("version", ["v7", "v11", "v13"])
@pytest.mark.parametrize("content", ["Hi", [{"type": "text", "text": "Hi"}], [PICTURE], [{"type": "text", "text": ""}]])
def test_tools_are_offered_whatever_the_form_of_the_question(version: str, content: Any) -> None:
    assert OFFERED in render(chat_template(version), [user(content)], [TOOL])


# What mistral_common refuses and clients send all the same: our choice, by tokenizer version.
CHOICES: tuple[tuple[str, str, list[Message], str], ...] = (
    ("an id of llama.cpp's own", "v7", [user("a"), said(None, tool_calls=[call("x" * 23 + "abcdefghi")]),
     result("x" * 23 + "abcdefghi")],
     '<s>[INST]a[/INST][TOOL_CALLS][{"name": "look", "arguments": {}, "id": "abcdefghi"}]</s>'
     "[TOOL_RESULTS]abcdefghi[TOOL_CONTENT]seen[/TOOL_RESULTS]"),
    ("an id of llama.cpp's own", "v11", [user("a"), said(None, tool_calls=[call("x" * 23 + "abcdefghi")]),
     result("x" * 23 + "abcdefghi")],
     "<s>[INST]a[/INST][TOOL_CALLS]look[CALL_ID]abcdefghi[ARGS]{}</s>"
     "[TOOL_RESULTS]abcdefghi[TOOL_CONTENT]seen[/TOOL_RESULTS]"),
    ("the system after an assistant", "v7", [user("a"), said("b"), {"role": "system", "content": "c"}, user("d")],
     "<s>[INST]a[/INST]b</s>[SYSTEM_PROMPT]c[/SYSTEM_PROMPT][INST]d[/INST]"),
    ("an assistant at the end", "v13", [user("a"), said("b")], "<s>[INST]a[/INST]b</s>"),
    ("an assistant that says nothing", "v11", [user("a"), said(""), user("b")], "<s>[INST]a[/INST][INST]b[/INST]"),
    ("a result nobody asked for", "v13", [user("a"), result("abcdefghi")],
     "<s>[INST]a[/INST][TOOL_RESULTS]seen[/TOOL_RESULTS]"),
    ("a result without an id", "v7", [user("a"), said(None, tool_calls=[call("abcdefghi")]), result(None)],
     '<s>[INST]a[/INST][TOOL_CALLS][{"name": "look", "arguments": {}, "id": "abcdefghi"}]</s>'
     "[TOOL_RESULTS][TOOL_CONTENT]seen[/TOOL_RESULTS]"),
    ("no message at all", "v7", [], "<s>"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("version", "messages", "prompt"), [choice[1:] for choice in CHOICES],
    ids=[f"{version}, {what}" for what, version, _, _ in CHOICES],
)  # fmt: skip
def test_what_mistral_common_refuses_is_taken_all_the_same(version: str, messages: list[Message], prompt: str) -> None:
    with pytest.raises(Refused):
        reference(version).encode(messages, [])

    assert render(chat_template(version), messages) == prompt


@pytest.mark.parametrize("role", ["observer", "function"])
def test_an_unknown_role_is_refused_by_its_name(role: str) -> None:
    with pytest.raises(jinja2.TemplateError, match=f"not {role}"):
        render(chat_template("v7"), [user("a"), {"role": role, "content": "b"}])


def test_a_models_own_system_prompt_stands_in_where_a_conversation_has_none() -> None:
    template = chat_template("v13", "think-tokens", 'Think "first".\nThen {{ answer }}.')

    begins = '<s>[SYSTEM_PROMPT]Think "first".\nThen {{ answer }}.[/SYSTEM_PROMPT]'
    assert render(template, [user("a")]) == f"{begins}[INST]a[/INST]"
    assert render(template, [{"role": "system", "content": "b"}, user("a")]) == (
        "<s>[SYSTEM_PROMPT]b[/SYSTEM_PROMPT][INST]a[/INST]"
    )
