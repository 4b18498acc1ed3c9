"""Clients that nobody here wrote, each asked for what people use it for.

Run by a Python that has them (tests/run_conformance makes one): `python clients.py CLIENT URL MODEL`, the key in
CONFORMANCE_KEY. Prints a JSON object: "ability" -> "yes", "refused: words" (an honest error where the engine cannot),
"ignored: ..." (200, and not what was asked for) or "no: words".
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from support.picture import png

HELLO = [{"role": "user", "content": "hello"}]
REPLY, SUNNY = "Hello! This is a scripted stand-in", "The weather in Paris is sunny"
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL: Any = {"type": "function", "function": {"name": "get_weather", "description": "weather", "parameters": CITY}}
FLAT: Any = {"type": "function", **TOOL["function"]}
MINE: Any = {"name": "get_weather", "description": "weather", "input_schema": CITY}
WORD = {
    "type": "object",
    "properties": {"word": {"type": "string", "enum": ["yes", "no"]}},
    "required": ["word"],
    "additionalProperties": False,
}
SCHEMA: Any = {"type": "json_schema", "json_schema": {"name": "word", "schema": WORD, "strict": True}}
WORDS = ('{"word":"yes"}', '{"word":"no"}')
LONG = "word " * 40_000
TIMEOUT_S = 120.0


class Refused(Exception):
    """The engine said in an error of status 400 that it cannot."""


class Ignored(Exception):
    """The engine answered 200, and not what was asked for."""


@dataclass(frozen=True)
class Site:
    """`url`: with /v1."""

    url: str
    model: str
    key: str

    @property
    def root(self) -> str:
        return self.url.removesuffix("/v1")


ABILITIES: dict[str, dict[str, Callable[[Site], None]]] = {}


def ability(client: str, name: str) -> Callable[[Callable[[Site], None]], Callable[[Site], None]]:
    def keep(function: Callable[[Site], None]) -> Callable[[Site], None]:
        ABILITIES.setdefault(client, {})[name] = function
        return function

    return keep


def expect(holds: object, seen: object) -> None:
    """Raises AssertionError with what was seen instead."""
    if not holds:
        raise AssertionError(f"got {seen!r:.300}")


def openai(site: Site, key: str | None = None) -> Any:
    import openai

    return openai.OpenAI(base_url=site.url, api_key=key or site.key, max_retries=0, timeout=TIMEOUT_S)


def chat(site: Site, messages: Any = HELLO, **more: Any) -> Any:
    return openai(site).chat.completions.create(model=site.model, messages=messages, **{"max_tokens": 64, **more})


def refusable(site: Site, **more: Any) -> Any:
    """The first choice of a reply that the engine may refuse."""
    import openai

    try:
        return chat(site, **more).choices
    except openai.BadRequestError as fault:
        raise Refused(str(fault)) from None


@ability("openai", "chat")
def _(site: Site) -> None:
    text = chat(site).choices[0].message.content
    expect(text.startswith(REPLY), text)


@ability("openai", "stream, with usage")
def _(site: Site) -> None:
    chunks = list(chat(site, stream=True, stream_options={"include_usage": True}))
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    expect(len(pieces) > 3 and "".join(pieces).startswith(REPLY), pieces)
    expect(any(chunk.usage and chunk.usage.completion_tokens for chunk in chunks), chunks[-1])


@ability("openai", "tools, round trip")
def _(site: Site) -> None:
    message = chat(site, tools=[TOOL]).choices[0].message
    expect(message.tool_calls and json.loads(message.tool_calls[0].function.arguments) == {"city": "Paris"}, message)
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": '{"sky": "clear"}'}
    text = chat(site, [*HELLO, message.model_dump(exclude_none=True), result], tools=[TOOL]).choices[0].message.content
    expect(text.startswith(SUNNY), text)


@ability("openai", "tools, content as a list")
def _(site: Site) -> None:
    listed = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
    message = chat(site, listed, tools=[TOOL]).choices[0].message
    if not message.tool_calls:
        raise Ignored(message.content)


@ability("openai", "tools, streamed")
def _(site: Site) -> None:
    deltas = [chunk.choices[0].delta for chunk in chat(site, tools=[TOOL], stream=True) if chunk.choices]
    parts = [call.function.arguments or "" for delta in deltas for call in delta.tool_calls or ()]
    expect("".join(parts) and json.loads("".join(parts)) == {"city": "Paris"}, parts)


@ability("openai", "tools, parallel calls")
def _(site: Site) -> None:
    function = {"name": "get_weather", "arguments": '{"city": "Paris"}'}
    calls = [{"id": identity, "type": "function", "function": function} for identity in ("abcdefgh1", "abcdefgh2")]
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "sunny"} for call in calls]
    asked = [*HELLO, {"role": "assistant", "content": None, "tool_calls": calls}, *results]
    text = chat(site, asked, tools=[TOOL]).choices[0].message.content
    expect(text and text.startswith(SUNNY), text)


@ability("openai", "tool_choice required")
def _(site: Site) -> None:
    message = refusable(site, tools=[TOOL], tool_choice="required")[0].message
    if not message.tool_calls:
        raise Ignored(message.content)


@ability("openai", "tool_choice none")
def _(site: Site) -> None:
    message = refusable(site, tools=[TOOL], tool_choice="none")[0].message
    if message.tool_calls:
        raise Ignored(message.tool_calls)


@ability("openai", "json_schema")
def _(site: Site) -> None:
    choice = refusable(site, response_format=SCHEMA)[0]
    text = "".join((choice.message.content or "").split())
    # The tiny model may write blanks up to its limit, as JSON lets it; what there is then has to begin by the schema.
    whole = choice.finish_reason != "length"
    if not any(text == word if whole else word.startswith(text) for word in WORDS):
        raise Ignored(choice.message.content)


@ability("openai", "two replies (n)")
def _(site: Site) -> None:
    if len(refusable(site, n=2)) != 2:
        raise Ignored("one reply")


@ability("openai", "logprobs")
def _(site: Site) -> None:
    choice = refusable(site, logprobs=True, top_logprobs=2)[0]
    if not (choice.logprobs and choice.logprobs.content):
        raise Ignored("none")


@ability("openai", "stop")
def _(site: Site) -> None:
    text = chat(site, stop=["scripted"]).choices[0].message.content
    expect(text.startswith("Hello!") and "scripted" not in text, text)


@ability("openai", "max_completion_tokens")
def _(site: Site) -> None:
    create = openai(site).chat.completions.create
    choice = create(model=site.model, messages=HELLO, max_completion_tokens=3).choices[0]
    if choice.finish_reason != "length":
        raise Ignored(choice.finish_reason)


@ability("openai", "images")
def _(site: Site) -> None:
    content = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": png()}}]
    text = refusable(site, messages=[{"role": "user", "content": content}])[0].message.content
    expect(text == "I can see one image in this request.", text)


@ability("openai", "a local file is not read")
def _(site: Site) -> None:
    import openai

    content = [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]
    try:
        text = chat(site, [{"role": "user", "content": content}]).choices[0].message.content
    except (openai.BadRequestError, openai.UnprocessableEntityError):
        return
    except openai.InternalServerError as fault:
        expect("root:" not in str(fault), fault)
        return
    raise AssertionError(f"200: {text!r:.200}")


@ability("openai", "a prompt that is too long")
def _(site: Site) -> None:
    import openai

    try:
        used = chat(site, [{"role": "user", "content": LONG}], max_tokens=2).usage
    except openai.BadRequestError:
        return
    raise Ignored(f"200, of which it read {used.prompt_tokens} tokens")


def at_once(site: Site, number: int) -> None:
    import openai

    async def all_of_them() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=site.url, api_key=site.key, max_retries=0, timeout=300) as client:
            one = client.chat.completions.create
            return await asyncio.gather(
                *(one(model=site.model, messages=HELLO, max_tokens=8) for _ in range(number)), return_exceptions=True
            )  # fmt: skip

    faults = [each for each in asyncio.run(all_of_them()) if isinstance(each, Exception)]
    expect(not faults, f"{len(faults)} of {number}: {faults[:1]}")


@ability("openai", "20 at once")
def _(site: Site) -> None:
    at_once(site, 20)


@ability("openai", "60 at once")
def _(site: Site) -> None:
    at_once(site, 60)


@ability("openai", "canceled streams free the engine")
def _(site: Site) -> None:
    for _ in range(4):
        stream = chat(site, [{"role": "user", "content": "Count."}], stream=True, max_tokens=900)
        next(iter(stream))
        stream.close()
    begin = time.monotonic()
    text = chat(site).choices[0].message.content
    expect(text.startswith(REPLY) and time.monotonic() - begin < 30, f"after {time.monotonic() - begin:.0f} s: {text}")


@ability("openai", "responses")
def _(site: Site) -> None:
    told = openai(site).responses.create(model=site.model, input="hello", max_output_tokens=64)
    expect(told.output_text.startswith(REPLY), told)


@ability("openai", "responses, streamed")
def _(site: Site) -> None:
    with openai(site).responses.stream(model=site.model, input="hello", max_output_tokens=64) as stream:
        kinds = [event.type for event in stream]
        expect(stream.get_final_response().output_text.startswith(REPLY), kinds)
    expect(kinds.count("response.output_text.delta") > 3, kinds)


@ability("openai", "responses, tools round trip")
def _(site: Site) -> None:
    create = openai(site).responses.create
    developer = {"role": "developer", "content": [{"type": "input_text", "text": "Use the tool."}]}
    asked: list[Any] = [developer, {"role": "user", "content": [{"type": "input_text", "text": "hello"}]}]
    tools = [FLAT, {"type": "web_search"}]
    told = create(model=site.model, input=asked, tools=tools, max_output_tokens=64)
    calls = [item for item in told.output if item.type == "function_call"]
    expect(calls and json.loads(calls[0].arguments) == {"city": "Paris"}, told.output)
    said = [item.model_dump(exclude_none=True) for item in told.output]
    results = [{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"} for call in calls]
    text = create(model=site.model, input=[*asked, *said, *results], tools=tools, max_output_tokens=64).output_text
    expect(text.startswith(SUNNY), text)


def anthropic(site: Site) -> Any:
    import anthropic

    return anthropic.Anthropic(base_url=site.root, api_key=site.key, max_retries=0, timeout=TIMEOUT_S).messages


@ability("anthropic", "message")
def _(site: Site) -> None:
    told = anthropic(site).create(model=site.model, max_tokens=64, messages=HELLO)
    expect(told.content[0].text.startswith(REPLY) and told.usage.output_tokens, told)


@ability("anthropic", "stream")
def _(site: Site) -> None:
    with anthropic(site).stream(model=site.model, max_tokens=64, messages=HELLO) as stream:
        pieces = list(stream.text_stream)
        expect(stream.get_final_message().stop_reason == "end_turn", pieces)
    expect(len(pieces) > 3 and "".join(pieces).startswith(REPLY), pieces)


@ability("anthropic", "tools, round trip")
def _(site: Site) -> None:
    create = anthropic(site).create
    told = create(model=site.model, max_tokens=64, messages=HELLO, tools=[MINE])
    calls = [block for block in told.content if block.type == "tool_use"]
    expect(calls and calls[0].input == {"city": "Paris"}, told.content)
    said = {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in told.content]}
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny"} for call in calls]
    asked = [*HELLO, said, {"role": "user", "content": results}]
    text = create(model=site.model, max_tokens=64, messages=asked, tools=[MINE]).content[0].text
    expect(text.startswith(SUNNY), text)


def langchain(site: Site) -> Any:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(
        model=site.model, base_url=site.url, api_key=site.key, max_tokens=64, max_retries=0, timeout=TIMEOUT_S
    )  # fmt: skip


@ability("langchain-openai", "invoke")
def _(site: Site) -> None:
    text = langchain(site).invoke("hello").content
    expect(text.startswith(REPLY), text)


@ability("langchain-openai", "stream")
def _(site: Site) -> None:
    pieces = [str(chunk.content) for chunk in langchain(site).stream("hello")]
    expect(len(pieces) > 3 and "".join(pieces).startswith(REPLY), pieces)


@ability("langchain-openai", "tools, round trip")
def _(site: Site) -> None:
    from langchain_core.messages import HumanMessage, ToolMessage

    model, asked = langchain(site).bind_tools([TOOL]), HumanMessage("hello")
    told = model.invoke([asked])
    expect(told.tool_calls and told.tool_calls[0]["args"] == {"city": "Paris"}, told)
    result = ToolMessage("sunny", tool_call_id=told.tool_calls[0]["id"])
    text = model.invoke([asked, told, result]).content
    expect(text.startswith(SUNNY), text)


@ability("langchain-openai", "structured output")
def _(site: Site) -> None:
    import openai

    schema = {"title": "word", "description": "a word", **WORD}
    asked = langchain(site).with_structured_output(schema, method="json_schema")
    try:
        told = asked.invoke("hello")
    except openai.BadRequestError as fault:
        raise Refused(str(fault)) from None
    except openai.LengthFinishReasonError as fault:  # blanks up to the limit, see above
        text = "".join((fault.completion.choices[0].message.content or "").split())
        expect(any(word.startswith(text) for word in WORDS), text)
        return
    except ValueError as fault:
        raise Ignored(str(fault)) from None
    expect(told["word"] in ("yes", "no"), told)


def litellm(site: Site, **more: Any) -> Any:
    import litellm

    return litellm.completion(
        model=f"openai/{site.model}", api_base=site.url, api_key=site.key, messages=HELLO, max_tokens=64,
        num_retries=0, timeout=TIMEOUT_S, **more,
    )  # fmt: skip


@ability("litellm", "completion")
def _(site: Site) -> None:
    text = litellm(site).choices[0].message.content
    expect(text.startswith(REPLY), text)


@ability("litellm", "stream")
def _(site: Site) -> None:
    pieces = [chunk.choices[0].delta.content or "" for chunk in litellm(site, stream=True)]
    expect(len(pieces) > 3 and "".join(pieces).startswith(REPLY), pieces)


@ability("litellm", "a call of a tool")
def _(site: Site) -> None:
    message = litellm(site, tools=[TOOL]).choices[0].message
    expect(message.tool_calls and json.loads(message.tool_calls[0].function.arguments) == {"city": "Paris"}, message)


def ollama(site: Site) -> Any:
    import ollama

    return ollama.Client(host=site.root, headers={"Authorization": f"Bearer {site.key}"}, timeout=TIMEOUT_S)


@ability("ollama", "chat")
def _(site: Site) -> None:
    text = ollama(site).chat(site.model, HELLO).message.content
    expect(text.startswith(REPLY), text)


@ability("ollama", "chat, streamed")
def _(site: Site) -> None:
    pieces = [part.message.content or "" for part in ollama(site).chat(site.model, HELLO, stream=True)]
    expect(len(pieces) > 3 and "".join(pieces).startswith(REPLY), pieces)


@ability("ollama", "a call of a tool")
def _(site: Site) -> None:
    message = ollama(site).chat(site.model, HELLO, tools=[TOOL]).message
    expect(message.tool_calls and message.tool_calls[0].function.arguments == {"city": "Paris"}, message)


@ability("ollama", "list, show, ps")
def _(site: Site) -> None:
    client = ollama(site)
    expect(any(str(each.model).startswith(site.model) for each in client.list().models), client.list())
    expect(client.show(site.model).modelinfo, client.show(site.model))
    expect(client.ps().models, client.ps())


@ability("ollama", "nothing is managed")
def _(site: Site) -> None:
    import ollama as package

    for act in (ollama(site).pull, ollama(site).delete):
        try:
            act(site.model)
        except package.ResponseError as fault:
            expect(fault.status_code == 403, fault)
        else:
            raise AssertionError(f"{act.__name__} was done")


def tried(act: Callable[[Site], None], site: Site) -> str:
    """What became of it, in a word and the words that came with it."""
    try:
        act(site)
    except Refused as fault:
        return f"refused: {fault}"
    except Ignored as fault:
        return f"ignored: {fault}"
    except Exception as fault:  # whatever a client raises is what its user would have seen
        return f"no: {type(fault).__name__}: {fault}"
    return "yes"


def main(client: str, url: str, model: str) -> None:
    site = Site(url, model, os.environ.get("CONFORMANCE_KEY") or "EMPTY")
    for name, act in ABILITIES[client].items():
        print(json.dumps({name: tried(act, site)[:600]}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
