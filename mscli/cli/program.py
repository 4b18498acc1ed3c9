"""The console script. The one call that scripts repeat every second is answered before the command tree is built."""

from __future__ import annotations

import sys


def run() -> None:
    """Run the program with this process's arguments and exit with its code."""
    sys.exit(_polled() if sys.argv[1:] == ["status", "--json"] else _whole())


def _polled() -> int:
    """`mscli status --json`, without Typer, which alone takes longer than all the rest of it."""
    from mscli.cli.screen import Screen
    from mscli.cli.status_view import show_status
    from mscli.errors import MscliError
    from mscli.instances.store import Store
    from mscli.paths import places

    try:
        return show_status(Screen("status", json_mode=True), Store(places()))
    except (MscliError, OSError):
        return _whole()  # the same again, inside the boundary that words faults


def _whole() -> int:
    from mscli.cli.main import main

    return main()
