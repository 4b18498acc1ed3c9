"""Saved conversations on the screen: `mscli chat --list` and `--show`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mscli.chat.conversation import images_of, words_of
from mscli.cli.layout import Column, ago, count, styled
from mscli.cli.screen import Screen
from mscli.errors import Code, MscliError

if TYPE_CHECKING:
    from mscli.chat.conversation import Turn
    from mscli.chat.conversation_log import ConversationLog

_MOST = 1000
_COLUMNS = (
    Column("N", right=True), Column("CHANGED"), Column("TURNS", 1, right=True), Column("MODEL", 2),
    Column("FIRST WORDS", 0, clip=True),
)  # fmt: skip


def show_list(screen: Screen, log: ConversationLog) -> None:
    """The saved conversations, the last first."""
    entries = log.entries(_MOST)
    if screen.json_mode:
        screen.rows({}, "conversations", entries)
        return
    if not entries:
        screen.note("no conversation is saved")
        return
    now = time.time()
    rows = [
        (str(each.number), f"{ago(now - each.changed)} ago", str(each.turns), each.model, each.title)
        for each in entries
    ]
    screen.table(_COLUMNS, rows)
    screen.note("to read one: mscli chat --show N; to go on with it: mscli chat --resume N", "dim")


def show(screen: Screen, log: ConversationLog, which: str, raw: bool) -> None:
    """One saved conversation, by its number or `last`. Raises USAGE."""
    conversation, entry = log.load(number_of("--show", which))
    if screen.json_mode:
        turns = conversation.turns
        left_out, summary = conversation.left_out, conversation.summary
        screen.data(
            {
                "conversation": entry,
                "system": conversation.system,
                "left_out": left_out,
                "summary": summary,
                "turns": turns,
            }
        )
        return
    screen.line(styled(f"conversation {entry.number} with {entry.model}, {count(entry.turns, 'turn')}", "dim"))
    for turn in conversation.turns:
        show_turn(screen, turn, raw)


def number_of(option: str, which: str) -> int | None:
    """The number of a conversation as it is typed; None for `last`. Raises USAGE."""
    if which == "last":
        return None
    if not which.isdecimal() or len(which) > 18:
        raise MscliError(Code.USAGE, f"{option} {which}: not a conversation's number", "See: mscli chat --list")
    return int(which)


def show_turn(screen: Screen, turn: Turn, raw: bool) -> None:
    """What was asked, and the reply."""
    screen.line("")
    for number, line in enumerate(words_of(turn.asked).split("\n")):
        screen.line(styled(("... " if number else ">>> ") + line, "bold"))
    if images := images_of(turn.asked):
        screen.line(styled(f"({count(images, 'image')})", "dim"))
    if screen.renders and not raw:
        from mscli.cli.live_markdown import LiveMarkdown

        live = LiveMarkdown(screen)
        live.feed(turn.text)
        live.end()
    else:
        screen.text(turn.text)
    if turn.stopped:
        screen.line(styled("(stopped)", "dim"))
