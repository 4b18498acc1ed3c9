"""`mscli chat` and its options: what it does is in ask.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mscli.cli.ask import Wishes, ask, saved
from mscli.cli.options import InstanceOption, Json
from mscli.cli.screen import Screen, open_screen

_EPILOG = 'Examples: mscli chat "hello"  |  cat log | mscli chat "What failed?"  |  mscli chat --image cat.png "What?"'
_SYSTEM = "Set the system prompt (default: the model's)."
_IMAGE = "Send an image: file, URL or clipboard (repeatable)."
_SCHEMA = "Answer with JSON that follows the schema in FILE."
_LIMIT = "Limit the reply to N tokens."
_FILE = "Send a text file along (repeatable)."
_THINK = "Show the reasoning (default: on a terminal)."
_TEMPERATURE = "Set the temperature (default: recommended)."


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("chat", epilog=_EPILOG)(chat)


def chat(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[[NAME] PROMPT]", help="The prompt; - reads standard input.")
    ] = None,
    instance: InstanceOption = None,
    system: Annotated[str | None, typer.Option("--system", metavar="TEXT", help=_SYSTEM)] = None,
    image: Annotated[list[str] | None, typer.Option(metavar="IMAGE", help=_IMAGE)] = None,
    file: Annotated[list[Path] | None, typer.Option("--file", "-f", metavar="FILE", help=_FILE)] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", metavar="N", min=1, help=_LIMIT)] = None,
    temperature: Annotated[float | None, typer.Option(metavar="X", min=0.0, help=_TEMPERATURE)] = None,
    schema: Annotated[Path | None, typer.Option(metavar="FILE", help=_SCHEMA)] = None,
    think: Annotated[bool | None, typer.Option("--think/--no-think", "--thinking/--no-thinking", help=_THINK)] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Print Markdown as it is.")] = False,
    stdin: Annotated[bool, typer.Option(help="Add piped input to the prompt.")] = True,
    go_on: Annotated[bool, typer.Option("--continue", "-c", help="Go on with the last conversation.")] = False,
    resume: Annotated[str | None, typer.Option(metavar="N", help="Go on with this conversation.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="List saved conversations.")] = False,
    show: Annotated[str | None, typer.Option(metavar="N", help="Show a saved conversation (or: last).")] = None,
    log: Annotated[bool, typer.Option(help="Save the conversation.")] = True,
    json: Json = False,
) -> None:  # fmt: skip
    """Send a prompt to an instance, or hold a conversation.

    One argument is the prompt; of two, the first is the instance. Without a prompt, on a terminal, a conversation
    starts. Piped input is added to the prompt; --no-stdin leaves it unread, as in a `while read` loop.
    """
    screen = open_screen(ctx, json)
    if list_ or show is not None:
        _show_saved(screen, show, raw)
        return
    resumed = "last" if go_on and resume is None else resume
    wishes = Wishes(
        instance, system, image or (), file or (), max_tokens, temperature, schema, think, raw, stdin, resumed, log
    )
    ask(screen, words or (), wishes)


def _show_saved(screen: Screen, which: str | None, raw: bool) -> None:
    from mscli.cli.reply_view import show_list, show_saved

    if which is None:
        show_list(screen, saved())
    else:
        show_saved(screen, saved(), which, raw)
