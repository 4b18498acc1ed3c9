"""`mscli chat` and its options, whose work is in ask.py; `mscli check`: whether an instance does what it promises."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mscli.cli.ask import Wishes, ask, saved
from mscli.cli.layout import Column, styled
from mscli.cli.screen import Screen, open_screen
from mscli.cli.tree import Commands, Instance, InstanceOption, Json
from mscli.errors import Code, Exit, MscliError

_EPILOG = 'Examples: mscli chat "hello"  |  cat log | mscli chat "What failed?"  |  mscli chat --image cat.png "What?"'
_SYSTEM = "Set the system prompt (default: the model's)."
_IMAGE = "Send an image: file, URL or clipboard (repeatable)."
_SCHEMA = "Answer with JSON that follows the schema in FILE."
_LIMIT = "Limit the reply to N tokens."
_FILE = "Send a text file along (repeatable)."
_THINK = "Show the reasoning (default: on a terminal)."
_TEMPERATURE = "Set the temperature (default: recommended)."


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


_COLUMNS = (Column("CHECK"), Column("RESULT"), Column("TIME", 2, right=True), Column("ANSWER", 1, clip=True))
_STYLES = {"ok": "green", "fail": "bold red", "lost": "bold red", "refused": "bold red", "skipped": "dim"}
_GGUF = "the chat template inside the GGUF file is in use: `mscli check --for agents` shows what it loses"
_CLIENT = "Try what coding agents send: agents."


def check(
    ctx: typer.Context,
    name: Instance = None,
    client: Annotated[str | None, typer.Option("--for", metavar="CLIENT", help=_CLIENT)] = None,
    json: Json = False,
) -> int:
    """Test chat, tool calls, images and reasoning of an instance.

    Sends one request per capability of the instance; with --for agents, one per kind of request that coding agents
    send, and mscli launch tells what this found. Exits with 5 if one fails.
    """
    from mscli.agents.launch import keep
    from mscli.agents.shapes import agent_checks
    from mscli.chat.reply import target_of
    from mscli.chat.selftest import OK, SKIPPED, self_test
    from mscli.engines.engine import Hosted
    from mscli.engines.table import engine
    from mscli.instances.json_values import to_json
    from mscli.instances.records import Records, the_one
    from mscli.paths import places

    screen = open_screen(ctx, json)
    if client not in (None, "agents"):
        raise MscliError(Code.USAGE, f"no checks for {client!r}", "For coding agents: mscli check --for agents")
    records = Records(places())
    record = the_one(records, name, "mscli check")
    target, listener = target_of(record), lambda what: screen.note(f"trying {what} ...")
    if client:
        checks = agent_checks(target, record.stand_in, listener)
        keep(record, records, checks)
    else:
        checks = self_test(target, record.capabilities, record.plan.images, record.reasoning, listener)
    known = engine(record.plan.engine)
    told = known.for_clients(record.sampling) if isinstance(known, Hosted) and record.gateway is None else None
    notes = [note for note in (told, _GGUF if record.request.template == "gguf" else None) if note]
    if json:
        screen.data({"instance": record.name, "checks": to_json(checks), "notes": notes})
    else:
        rows = [
            (item.name, styled(item.status, _STYLES[item.status]), f"{item.seconds:.1f} s", item.seen)
            for item in checks
        ]
        screen.table(_COLUMNS, rows)
        for note in notes:
            screen.note(f"note: {note}", "yellow")
    return Exit.FINDINGS if any(item.status not in (OK, SKIPPED) for item in checks) else Exit.DONE


COMMANDS: Commands = {
    "chat": (chat, _EPILOG),
    "check": (check, "Examples: mscli check  |  mscli check small-q4 --json  |  mscli check --for agents"),
}
