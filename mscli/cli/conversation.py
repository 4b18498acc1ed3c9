"""A conversation on a terminal: what is typed goes to the model or to a command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from mscli.cli.chat_log import show_turn
from mscli.cli.prompt import Prompt
from mscli.cli.slash import COMMANDS, meanings, take, words
from mscli.cli.talk import Saving, Shown, Talk

if TYPE_CHECKING:
    from mscli.chat.conversation import Conversation
    from mscli.chat.image import Image
    from mscli.chat.reply import Target
    from mscli.cli.screen import Screen


def converse(
    screen: Screen, target: Target, conversation: Conversation, images: tuple[Image, ...], saving: Saving, shown: Shown
) -> None:
    """Read, ask, print, until the user leaves. A fault in one turn does not end the conversation."""
    went_on = f", conversation {conversation.number}" if conversation.number is not None else ""
    screen.note(f"talking to {target.model} ({target.name}{went_on}); /help for commands, Ctrl-D to quit", "dim")
    talk = Talk(screen, target, conversation, saving, shown)
    talk.images = images
    if conversation.turns:
        show_turn(screen, conversation.turns[-1], shown.raw)
    prompt = Prompt(screen, meanings(COMMANDS), words())
    for line in prompt.lines():
        with _quiet_keys():
            if not take(talk, line):
                return
        prompt.leaving = talk.stopped


@contextmanager
def _quiet_keys() -> Iterator[None]:
    """What is typed while a reply comes is not shown in the middle of it; it stands at the next prompt."""
    import termios

    try:
        before = termios.tcgetattr(0)
    except (OSError, termios.error):
        yield
        return
    quiet = [*before]
    quiet[3] = before[3] & ~termios.ECHO
    termios.tcsetattr(0, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        with suppress(OSError, termios.error):
            termios.tcsetattr(0, termios.TCSANOW, before)
