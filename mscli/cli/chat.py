"""`mscli chat`: one prompt, a pipe, or a conversation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mscli.cli.options import Json, NameOption
from mscli.cli.screen import Screen, open_screen
from mscli.errors import Code, MscliError

if TYPE_CHECKING:
    from mscli.chat.message import Message
    from mscli.chat.reply import Reply, Target
    from mscli.chat.thinking import Piece

_EPILOG = 'Examples: mscli chat "hello"  |  echo hello | mscli chat  |  mscli chat --image cat.png "What is this?"'


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("chat", epilog=_EPILOG)(chat)


def chat(
    ctx: typer.Context,
    prompt: Annotated[str | None, typer.Argument(metavar="[PROMPT]", help="What to say; '-' reads a pipe.")] = None,
    name: NameOption = None,
    system: Annotated[str | None, typer.Option("--system", help="System prompt in place of the model's own.")] = None,
    image: Annotated[list[Path] | None, typer.Option(help="An image to send along; may be repeated.")] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", min=1, help="Longest reply.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, help="In place of the recommended one.")] = None,
    thinking: Annotated[bool, typer.Option(help="Show the reasoning on standard error.")] = True,
    json: Json = False,
) -> None:  # fmt: skip
    """Talk to the running model; without a prompt on a terminal, have a conversation."""
    from mscli.chat import message

    screen = open_screen(ctx, json)
    target = _target(name, max_tokens, temperature)
    opening = [message.system(text)] if (text := target.system_prompt if system is None else system) else []
    images = tuple(image or ())
    if prompt is None and sys.stdin.isatty():
        if json:
            raise MscliError(Code.USAGE, "a conversation has no JSON form", "Give a prompt, or pipe one in.")
        from mscli.cli.conversation import converse

        converse(screen, target, opening, images)
        return
    # Standard input is only read when no prompt is given: inside `while read` loops it belongs to the loop.
    words = sys.stdin.read() if prompt in (None, "-") else prompt
    if not words or not words.strip():
        raise MscliError(Code.USAGE, "the prompt is empty", 'Say something: mscli chat "hello"')
    messages = [*opening, message.user(words, images)]
    if json:
        _answer_json(screen, target, messages)
    else:
        say(screen, target, messages, thinking and sys.stderr.isatty())


def say(screen: Screen, target: Target, messages: list[Message], thinking: bool) -> Reply:
    """Ask, and print the reply as it comes: the answer to standard output, the reasoning dimmed to standard error."""
    from mscli.chat.reply import ask
    from mscli.chat.truncation import cut_prompt

    spoken = thought = False

    def heard(piece: Piece) -> None:
        nonlocal spoken, thought
        if piece.thought:
            if thinking:
                thought = True
                sys.stderr.write(f"\x1b[2m{piece.text}\x1b[0m")
                sys.stderr.flush()
            return
        text = piece.text if spoken else piece.text.lstrip("\n")
        if text and thought and not spoken:
            sys.stderr.write("\n")
        spoken = spoken or bool(text)
        screen.piece(text)

    reply = ask(target, messages, heard)
    for call in reply.tool_calls:
        screen.piece(f"{call.name}({call.arguments})\n")
    if not reply.text.endswith("\n"):
        screen.piece("\n")
    if cut := cut_prompt(messages, reply.prompt_tokens):
        screen.note(
            f"warning: the server cut the prompt: at least {cut.sent_tokens} tokens were sent, it read "
            f"{cut.evaluated_tokens}. Shorten it, or start with a larger --ctx.",
            "yellow",
        )
    if reply.finish_reason == "length":
        screen.note("the reply was cut off: it reached the longest length allowed (--max-tokens, or the context)")
    return reply


def _target(name: str | None, max_tokens: int | None, temperature: float | None) -> Target:
    """The instance to ask, with the sampling wished for."""
    from dataclasses import replace

    from mscli.cli.target import target_of
    from mscli.instances.records import Records, the_one
    from mscli.paths import places

    target = target_of(the_one(Records(places()), name))
    sampling = target.sampling
    if max_tokens is not None:
        sampling = replace(sampling, max_tokens=max_tokens)
    if temperature is not None:
        sampling = replace(sampling, temperature=temperature)
    return replace(target, sampling=sampling)


def _answer_json(screen: Screen, target: Target, messages: list[Message]) -> None:
    from mscli.chat.reply import ask
    from mscli.chat.truncation import cut_prompt
    from mscli.instances.json_values import to_json

    reply = ask(target, messages, lambda _: None)
    speed = reply.tokens_per_second
    data = {"instance": target.name, "model": target.model, **to_json(reply)}
    cut = cut_prompt(messages, reply.prompt_tokens)
    data |= {"tokens_per_second": None if speed is None else round(speed, 2), "truncated": to_json(cut)}
    screen.data(data)
