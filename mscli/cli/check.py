"""`mscli check`: whether a running instance does what it promises."""

from __future__ import annotations

from typing import Annotated

import typer

from mscli.cli.layout import Column, styled
from mscli.cli.options import Instance, Json
from mscli.cli.screen import open_screen
from mscli.errors import Code, Exit, MscliError

_COLUMNS = (Column("CHECK"), Column("RESULT"), Column("TIME", 2, right=True), Column("ANSWER", 1, clip=True))
_STYLES = {"ok": "green", "fail": "bold red", "lost": "bold red", "refused": "bold red", "skipped": "dim"}
_GGUF = "the chat template inside the GGUF file is in use: `mscli check --for agents` shows what it loses"
_FOR = "Try what coding agents send: agents."


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("check", epilog="Examples: mscli check  |  mscli check small-q4 --json  |  mscli check --for agents")(
        check
    )


def check(
    ctx: typer.Context,
    name: Instance = None,
    client: Annotated[str | None, typer.Option("--for", metavar="CLIENT", help=_FOR)] = None,
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
    record = the_one(records, name)
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
