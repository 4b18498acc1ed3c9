"""`mscli chat`: one prompt, a pipe, or a conversation with line history, images and slash commands."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mscli.chat import message
from mscli.chat.message import Message
from mscli.cli.options import InstanceOption, Json
from mscli.cli.screen import Screen, open_screen
from mscli.errors import Code, MscliError
from mscli.paths import places

if TYPE_CHECKING:
    from mscli.chat.reply import Reply, Target
    from mscli.chat.stream import Piece

_EPILOG = 'Examples: mscli chat "hello"  |  echo hello | mscli chat  |  mscli chat --image cat.png "What is this?"'
_SYSTEM = "Set the system prompt (default: the model's)."
_LIMIT = "Limit the reply to N tokens."
_TEMPERATURE = "Set the temperature (default: recommended)."
_HELP = """/image FILE   send an image with the next message      /reset   start over
/system TEXT  set the system prompt and start over     /bye     leave (or Ctrl-D)
\"\"\"           starts and ends a message of several lines; Ctrl-C stops a reply"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("chat", epilog=_EPILOG)(chat)


def chat(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[[NAME] PROMPT]", help="What to say; - reads standard input.")
    ] = None,
    instance: InstanceOption = None,
    system: Annotated[str | None, typer.Option("--system", metavar="TEXT", help=_SYSTEM)] = None,
    image: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="Send an image along (repeatable).")] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", metavar="N", min=1, help=_LIMIT)] = None,
    temperature: Annotated[float | None, typer.Option(metavar="X", min=0.0, help=_TEMPERATURE)] = None,
    thinking: Annotated[bool, typer.Option(help="Show the reasoning on standard error.")] = True,
    json: Json = False,
) -> None:  # fmt: skip
    """Send a prompt to an instance, or hold a conversation.

    One word or quoted text is the prompt; of two, the first is the instance. Without a prompt, on a terminal, a
    conversation starts.
    """
    screen = open_screen(ctx, json)
    name, prompt = _addressed(words or [], instance)
    target = _target(name, max_tokens, temperature)
    opening = [message.system(text)] if (text := target.system_prompt if system is None else system) else []
    images = tuple(image or ())
    if prompt is None and sys.stdin and sys.stdin.isatty():
        if json:
            raise MscliError(Code.USAGE, "a conversation has no JSON form", "Give a prompt, or pipe one in.")
        converse(screen, target, opening, images)
        return
    # Standard input is only read when no prompt is given: inside `while read` loops it belongs to the loop.
    text = (sys.stdin.read() if sys.stdin else "") if prompt in (None, "-") else prompt
    if not text or not text.strip():
        raise MscliError(Code.USAGE, "the prompt is empty", 'Say something: mscli chat "hello"')
    messages = [*opening, message.user(text, images)]
    if json:
        _answer_json(screen, target, messages)
    else:
        say(screen, target, messages, thinking and screen.live)


def _addressed(words: list[str], instance: str | None) -> tuple[str | None, str | None]:
    """(the instance, the prompt): one word is always a prompt, of two the first names the instance. Raises USAGE."""
    if len(words) < 2:
        return instance, words[0] if words else None
    if len(words) > 2 or instance is not None:
        raise MscliError(Code.USAGE, f"{len(words)} words were given", 'Quote the prompt: mscli chat "two words"')
    return words[0], words[1]


def say(screen: Screen, target: Target, messages: list[Message], thinking: bool) -> Reply:
    """Ask, and print the reply as it comes: the answer to standard output, the reasoning dimmed to standard error."""
    from mscli.chat.reply import ask

    spoken = thought = False

    def heard(piece: Piece) -> None:
        nonlocal spoken, thought
        if piece.thought:
            if thinking:
                thought = True
                screen.aside(piece.text, "dim")
            return
        text = piece.text if spoken else piece.text.lstrip("\n")
        if text and thought and not spoken:
            screen.aside("\n")
        spoken = spoken or bool(text)
        screen.piece(text)

    reply = ask(target, messages, heard)
    for call in reply.tool_calls:
        screen.piece(f"{call.name}({call.arguments})\n")
    if not reply.text.endswith("\n"):
        screen.piece("\n")
    if cut := reply.truncated:
        screen.note(
            f"warning: the server cut the prompt: it read {cut.evaluated_tokens:,} of at least {cut.sent_tokens:,} "
            "tokens. Shorten it, or start with a larger --ctx.",
            "yellow",
        )
    if reply.finish_reason == "length":
        screen.note("the reply was cut off: it reached the longest length allowed (--max-tokens, or the context)")
    return reply


def _target(name: str | None, max_tokens: int | None, temperature: float | None) -> Target:
    """The instance to ask, with the sampling wished for."""
    from mscli.chat.reply import target_of
    from mscli.instances.records import Records, the_one

    target = target_of(the_one(Records(places()), name))
    sampling = target.sampling
    if max_tokens is not None:
        # Ollama goes on beyond the context, and forgets the beginning.
        sampling = replace(sampling, max_tokens=min(max_tokens, target.context or max_tokens))
    if temperature is not None:
        sampling = replace(sampling, temperature=temperature)
    return replace(target, sampling=sampling)


def _answer_json(screen: Screen, target: Target, messages: list[Message]) -> None:
    from mscli.chat.reply import ask
    from mscli.instances.json_values import to_json

    reply = ask(target, messages, lambda _: None)
    speed = reply.tokens_per_second
    data = {"instance": target.name, "model": target.model, **to_json(reply)}
    screen.data({**data, "tokens_per_second": None if speed is None else round(speed, 2)})


def converse(screen: Screen, target: Target, opening: list[Message], images: tuple[Path, ...]) -> None:
    """Read, ask, print, until the user leaves. A fault in one turn does not end the conversation."""
    screen.note(f"talking to {target.model} ({target.name}); /help for commands, Ctrl-D to leave", "dim")
    talk = _Talk(screen, target, opening, images)
    with _history():
        while (line := _read(screen)) is not None:
            if not talk.take(line):
                return


class _Talk:
    """The conversation so far."""

    def __init__(self, screen: Screen, target: Target, opening: list[Message], images: tuple[Path, ...]) -> None:
        self._screen, self._target = screen, target
        self._messages, self._images = list(opening), images

    def take(self, line: str) -> bool:
        """Act on what the user typed; False when the conversation is over."""
        word, _, rest = line.strip().partition(" ")
        if word in ("/bye", "/exit", "/quit"):
            return False
        try:
            self._command(word, rest) if word.startswith("/") else self._ask(line)
        except MscliError as fault:
            self._screen.error(fault)
        return True

    def _command(self, word: str, rest: str) -> None:
        if word == "/reset":
            self._messages = [item for item in self._messages if item["role"] == "system"]
        elif word == "/system":
            self._messages = [message.system(rest)] if rest else []
        elif word == "/image":
            paths = tuple(Path(part) for part in shlex.split(rest))
            for path in paths:
                message.data_url(path)  # a wrong path is told now, not with the next message
            self._images += paths
        else:
            self._screen.note(_HELP)

    def _ask(self, line: str) -> None:
        if not line.strip():
            return
        turn = message.user(line, self._images)
        try:
            reply = say(self._screen, self._target, [*self._messages, turn], thinking=True)
        except KeyboardInterrupt:
            self._screen.note("\n(stopped)")
            return
        self._images = ()
        self._messages += [turn, message.assistant(reply.text)]


def _read(screen: Screen) -> str | None:
    """One message of the user, or None at the end. Ctrl-C on an empty line asks again."""
    try:
        line = input(">>> ")
        if not line.startswith('"""'):
            return line
        lines = [line[3:]]
        while not lines[-1].rstrip().endswith('"""'):
            lines.append(input("... "))
        return "\n".join(lines).rstrip().removesuffix('"""')
    except EOFError:
        screen.piece("\n")
        return None
    except KeyboardInterrupt:
        screen.piece("\n")
        return ""


@contextlib.contextmanager
def _history() -> Iterator[None]:
    """Line editing with the history of earlier conversations, kept private."""
    import readline

    path = places().history
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            readline.set_history_length(2000)
            readline.write_history_file(path)
            path.chmod(0o600)
