"""What a gated repository wants of a user at a terminal: its conditions accepted, and a token."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from mscli.cli.screen import Screen
from mscli.errors import MscliError

_T = TypeVar("_T")
_TOKENS = "https://huggingface.co/settings/tokens"


def until_admitted(screen: Screen, work: Callable[[], _T]) -> _T:
    """Do `work`; where the hub refuses it, and somebody is there to ask, ask for what is missing and do it again.

    Raises what `work` raises.
    """
    while True:
        try:
            return work()
        except MscliError as fault:
            if not _helped(screen, fault):
                raise


def _helped(screen: Screen, fault: MscliError) -> bool:
    """Whether the user did something about it, so that another try makes sense."""
    kind, page = fault.details.get("token"), fault.details.get("page")
    asked = screen.live and sys.stdin is not None and sys.stdin.isatty()
    if fault.details.get("cause") != "hf_gated" or not asked or kind not in ("missing", "invalid", "not_accepted"):
        return False
    screen.note(fault.message, "yellow")
    screen.note(f"Accept the conditions: {page}")
    if kind == "not_accepted":
        return screen.confirm("Accepted? Try again?", default=True)
    return _logged_in(screen)


def _logged_in(screen: Screen) -> bool:
    """Ask for a token and keep it. False: none was given, or one in the environment goes before any that is kept."""
    from getpass import getpass

    from mscli.paths import hub_token_file
    from mscli.weights.hub import keep_token, token

    if (sent := token()) and sent.origin != str(hub_token_file()):
        return False
    screen.note(f"Create a token that may read: {_TOKENS}")
    typed = getpass("Token (not shown; Enter: stop): ", stream=sys.stderr).strip()
    if typed:
        screen.note(f"kept in {keep_token(typed)}", "dim")
    return bool(typed)
