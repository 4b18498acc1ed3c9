"""`mscli check`: whether a running instance does what it promises."""

from __future__ import annotations

import typer

from mscli.cli.layout import Column, styled
from mscli.cli.options import Instance, Json
from mscli.cli.screen import open_screen
from mscli.errors import Exit

_COLUMNS = (Column("CHECK"), Column("RESULT"), Column("TIME", 2, right=True), Column("ANSWER", 1, clip=True))
_STYLES = {"ok": "green", "fail": "bold red", "skipped": "dim"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("check", epilog="Examples: mscli check  |  mscli check small-q4 --json")(check)


def check(ctx: typer.Context, name: Instance = None, json: Json = False) -> int:
    """Test chat, tool calls, images and reasoning of an instance.

    Sends one request per capability of the instance. Exits with 5 if one fails.
    """
    from mscli.chat.reply import target_of
    from mscli.chat.selftest import FAIL, self_test
    from mscli.engines.engine import Hosted
    from mscli.engines.table import engine
    from mscli.instances.json_values import to_json
    from mscli.instances.records import Records, the_one
    from mscli.paths import places

    screen = open_screen(ctx, json)
    record = the_one(Records(places()), name)
    checks = self_test(
        target_of(record),
        record.capabilities,
        record.plan.images,
        record.reasoning,
        lambda what: screen.note(f"trying {what} ..."),
    )
    known = engine(record.plan.engine)
    told = known.for_clients(record.sampling) if isinstance(known, Hosted) and record.gateway is None else None
    if json:
        screen.data({"instance": record.name, "checks": to_json(checks), "notes": [told] if told else []})
    else:
        rows = [
            (item.name, styled(item.status, _STYLES[item.status]), f"{item.seconds:.1f} s", item.seen)
            for item in checks
        ]
        screen.table(_COLUMNS, rows)
        if told:
            screen.note(f"note: {told}", "yellow")
    return Exit.FINDINGS if any(item.status == FAIL for item in checks) else Exit.DONE
