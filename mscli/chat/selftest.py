"""The self-test of a running instance: one chat, one tool call, one image, one thought, as far as they are promised.

An engine can be healthy and still answer tool calls as text, or cut every prompt: only asking shows it.
"""

from __future__ import annotations

import base64
import json
import struct
import time
import zlib
from collections.abc import Callable, Collection, Iterable

from mscli.chat.message import Message, user
from mscli.chat.reply import Reply, Target, ask
from mscli.chat.stream import Piece
from mscli.errors import Code, MscliError
from mscli.frozen import frozen, replace

OK, FAIL, SKIPPED = "ok", "fail", "skipped"
_TOOL: dict[str, object] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city now",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
FIRST_QUESTION = "Say hello in one short sentence."
FIRST_TOKENS, FIRST_S = 32, 10.0
_LONGEST_REPLY = 256
_LONGEST_THOUGHT = 4096


@frozen
class Check:
    """One thing that was tried. `seen`: what came back, or why it was not tried."""

    name: str
    status: str
    seen: str
    seconds: float


class Wrong(Exception):
    """What came back is not what was asked for. `status`: of the check; `silent`: nothing comes from there at all."""

    def __init__(self, seen: str, status: str = FAIL, silent: bool = False) -> None:
        super().__init__(seen)
        self.status, self.silent = status, silent


# What is tried: its name, why it cannot be (None: it can), and the attempt, which gives what was seen or raises Wrong.
Try = tuple[str, str | None, Callable[[], str]]


def self_test(
    target: Target, capabilities: Collection[str], images: int, reasoning: str, listener: Callable[[str], None]
) -> tuple[Check, ...]:
    """Ask the instance once for each of its abilities; `listener` hears what is being tried.

    `capabilities`: of the model on its engine; `images`: allowed per request; `reasoning`: how it marks its reasoning.
    Waits for each reply; a refusal of the server is a failed check, never raised. A server that does not respond at all
    is not asked for the rest.
    """
    brief, patient = _at_most(target, _LONGEST_REPLY), _at_most(target, _LONGEST_THOUGHT)
    thinks = reasoning != "none" and "reasoning" in capabilities
    tries: list[Try] = [
        ("chat", None, lambda: _chat(patient if thinks else brief)),
        ("tools", None if "tools" in capabilities else "no tool calls on this engine and model", lambda: _tools(brief)),
        ("image", None if images else "started without images", lambda: _image(brief)),
        ("reasoning", None if thinks else "no reasoning output from this model", lambda: _reasoning(patient)),
    ]
    return tried(tries, listener)


def tried(tries: Iterable[Try], listener: Callable[[str], None]) -> tuple[Check, ...]:
    """Make each try that can be made. What goes wrong is told in its check; once the server does not respond at all,
    the rest is not tried."""
    checks: list[Check] = []
    gone: str | None = None
    for name, why_not, attempt in tries:
        if why := why_not or gone:
            checks.append(Check(name, SKIPPED, why, 0.0))
            continue
        listener(name)
        begun = time.monotonic()
        try:
            status, seen = OK, attempt()
        except Wrong as fault:
            status, seen, silent = fault.status, str(fault), fault.silent
        except MscliError as fault:
            status, seen, silent = FAIL, str(fault), bool(fault.details.get("unresponsive"))
        else:
            silent = False
        gone = "not tried: it does not respond" if silent else None
        checks.append(Check(name, status, seen, time.monotonic() - begun))
    return tuple(checks)


def _at_most(target: Target, tokens: int) -> Target:
    """The target with replies of so many tokens, or half of a small context: vLLM refuses more than fits."""
    longest = min(tokens, target.context // 2) if target.context else tokens
    return replace(target, sampling=replace(target.sampling, max_tokens=longest))


@frozen
class FirstAnswer:
    """The one question that `mscli up` ends with. `line`: the first line of the answer, or of the thoughts before it.

    `decode_tok_s`: measured after the first token, None for too short an answer. `fault`: why there is none.
    """

    question: str
    line: str | None
    seconds: float
    tokens: int | None
    decode_tok_s: float | None
    fault: str | None = None


def first_answer(target: Target) -> FirstAnswer:
    """Ask the instance one short question: at most FIRST_TOKENS tokens and FIRST_S seconds. What goes wrong is told in
    the answer, never raised."""
    brief = replace(target, sampling=replace(target.sampling, max_tokens=FIRST_TOKENS))
    begun = time.monotonic()

    def on_time(_: Piece) -> None:
        if time.monotonic() - begun > FIRST_S:
            raise MscliError(Code.REQUEST_FAILED, f"the answer was not complete after {FIRST_S:.0f} s")

    try:
        reply = ask(brief, [user(FIRST_QUESTION)], on_time, timeout_s=FIRST_S)
    except MscliError as fault:
        words = fault.details.get("evidence")
        seen = f"{fault.message}: {words[0]}" if isinstance(words, list) and words else fault.message
        return FirstAnswer(FIRST_QUESTION, None, time.monotonic() - begun, None, None, seen)
    said = (reply.text or reply.reasoning).strip().splitlines()
    line = next((_short(each) for each in said if each.strip()), None)
    empty = None if line else f"the answer is empty (it ended with {reply.finish_reason!r})"
    return FirstAnswer(FIRST_QUESTION, line, reply.seconds, reply.completion_tokens, reply.tokens_per_second, empty)


def _chat(target: Target) -> str:
    reply = _asked(target, [user(FIRST_QUESTION)])
    if not reply.text.strip():
        raise Wrong(f"the reply is empty (it ended with {reply.finish_reason!r})")
    return _short(reply.text)


def _tools(target: Target) -> str:
    # As a list, the way most agents send it: a template that compares messages loses the tools then, without a word.
    content = [{"type": "text", "text": "What is the weather in Paris? Use the tool."}]
    reply = _asked(target, [{"role": "user", "content": content}], (_TOOL,))
    if not reply.tool_calls:
        raise Wrong(f"text came back instead of a tool call: {_short(reply.text)!r}")
    call = reply.tool_calls[0]
    try:
        arguments = json.loads(call.arguments)
    except ValueError:
        raise Wrong(f"the arguments of the call are not JSON: {_short(call.arguments)!r}") from None
    if call.name != "get_weather" or not isinstance(arguments, dict):
        raise Wrong(f"another call came back: {call.name}({_short(call.arguments)})")
    return f"{call.name}({call.arguments})"


def _image(target: Target) -> str:
    picture = "data:image/png;base64," + base64.b64encode(_png()).decode()
    content = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": "What do you see?"}]
    reply = _asked(target, [{"role": "user", "content": content}])
    if not reply.text.strip():
        raise Wrong("the answer about an image is empty")
    return _short(reply.text)


def _reasoning(target: Target) -> str:
    reply = _asked(target, [user("How many days are in two weeks?")])
    if not reply.reasoning.strip():
        raise Wrong(f"no reasoning was separated from the answer: {_short(reply.text)!r}")
    return f"{_short(reply.reasoning)} | {_short(reply.text)}"


def _asked(target: Target, messages: list[Message], tools: tuple[dict[str, object], ...] = ()) -> Reply:
    if target.system_prompt:
        messages = [{"role": "system", "content": target.system_prompt}, *messages]
    reply = ask(target, messages, lambda _: None, tools=tools)
    if cut := reply.truncated:
        raise Wrong(f"the server cut the prompt: {cut.sent_tokens} tokens sent at least, {cut.evaluated_tokens} read")
    return reply


def _short(text: str) -> str:
    line = " ".join(text.split())
    if len(line) <= 80:
        return line
    words = line[:77].rpartition(" ")[0]
    return f"{words if len(words) > 66 else line[:77]}..."


def _png(side: int = 56) -> bytes:
    """A small picture: a grey square with a darker half."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    row = b"\0" + bytes([64] * (side // 2) + [192] * (side - side // 2))
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    body = zlib.compress(row * side)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
