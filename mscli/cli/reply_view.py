"""A reply as the user sees it come in: a sign of life, thoughts, the answer, and what has to be said of it; and saved
conversations (`mscli chat --list` and `--show`).

Markdown that streams is rendered block by block once a block is finished; below that the last rows of what comes next
are drawn anew. What is finished is written once and scrolls like any other output.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mscli.chat.conversation import ConversationLog, Turn, images_of, words_of
from mscli.cli.layout import Column, ago, cells, count, rows_of, styled
from mscli.cli.markdown_blocks import Block, Blocks
from mscli.cli.screen import Screen
from mscli.errors import Code, MscliError
from mscli.untrusted import clean

if TYPE_CHECKING:
    from mscli.chat.message import Message
    from mscli.chat.reply import Reply, Target
    from mscli.chat.stream import Piece


# Most replies begin sooner, and a line that flashes up is noise.
_QUIET_S = 0.7


def say(
    screen: Screen,
    target: Target,
    messages: list[Message],
    think: bool,
    raw: bool = False,
    fields: Mapping[str, object] | None = None,
) -> Reply:
    """Ask, and print the reply as it comes: the answer to standard output, the reasoning dimmed to standard error.

    `raw`: the Markdown as the model wrote it, as where standard output is no terminal. `fields` are added to the
    request. Raises as `reply.ask` does, and Stopped for a Ctrl-C; what had come by then stays shown.
    """
    from mscli.chat.reply import ask

    with ReplyView(screen, think, raw) as view:
        try:
            reply = ask(target, messages, view.hear, fields=fields)
        except KeyboardInterrupt:
            raise Stopped(view.said(thought=False), view.said(thought=True)) from None
    for call in reply.tool_calls:
        screen.piece(f"{call.name}({call.arguments})\n")
    if cut := reply.truncated:
        screen.note(
            f"warning: the server cut the prompt: it read {cut.evaluated_tokens:,} of at least {cut.sent_tokens:,} "
            "tokens. Shorten it, or start with a larger --ctx.",
            "yellow",
        )
    if reply.finish_reason == "length":
        screen.note("the reply was cut off: it reached the longest length allowed (--max-tokens, or the context)")
    return reply


class Stopped(KeyboardInterrupt):
    """The user ended a reply. `text` and `reasoning`: what had come of it."""

    def __init__(self, text: str, reasoning: str) -> None:
        super().__init__()
        self.text, self.reasoning = text, reasoning


class ReplyView:
    """Shows the pieces of one reply. A context manager: at its end the cursor is at the start of a line."""

    def __init__(self, screen: Screen, think: bool, raw: bool) -> None:
        self._screen, self._think = screen, think
        self._waiting = Waiting(screen, "waiting for the first token")
        self._live = LiveMarkdown(screen) if screen.renders and not raw else None
        self._spoken = self._thought = False
        self._pieces: list[Piece] = []
        self._open = ""  # what the last piece of a stream without Markdown ended with

    def hear(self, piece: Piece) -> None:
        """Show a piece."""
        self._waiting.end()
        self._pieces.append(piece)
        if piece.thought:
            self._hear_thought(piece.text)
            return
        text = piece.text if self._spoken else piece.text.lstrip("\n")
        if not text:
            return
        self._end_thought()
        self._spoken = True
        if self._live:
            self._live.feed(text)
        else:
            self._screen.piece(text)
            self._open = text[-1]

    def said(self, thought: bool) -> str:
        """What was thought, or answered, so far."""
        return "".join(piece.text for piece in self._pieces if piece.thought == thought).lstrip("\n")

    def __enter__(self) -> ReplyView:
        self._waiting.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.end()
        self._end_thought()
        if self._live:
            self._live.end()
        elif self._open not in ("", "\n"):
            self._screen.piece("\n")

    def _hear_thought(self, text: str) -> None:
        if not self._think:
            return
        if self._live and self._spoken and not self._thought:
            self._live.end()
        text = text if self._thought else text.lstrip("\n")
        if text:
            self._thought = True
            self._screen.aside(text, "dim")

    def _end_thought(self) -> None:
        if self._thought:
            self._thought = False
            self._screen.aside("\n\n" if not self._spoken else "\n")


class Waiting:
    """A moving line on the terminal that says what is waited for, and for how long. Nothing where there is none."""

    def __init__(self, screen: Screen, what: str) -> None:
        self._screen, self._what = screen, what
        self._over, self._drawing, self._shown = threading.Event(), threading.Lock(), False
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Say it from now on, after a moment."""
        if self._screen.live:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Take the line off the screen. Does nothing the second time."""
        if self._thread is None:
            return
        self._thread = None
        self._over.set()
        with self._drawing:
            if self._shown:
                self._screen.moving("")

    def _run(self) -> None:
        begun, pause_s = time.monotonic(), _QUIET_S
        while not self._over.wait(pause_s):
            with self._drawing:
                if self._over.is_set():
                    return
                self._shown, pause_s = True, 1.0
                self._screen.moving(f"{self._what}: {time.monotonic() - begun:.0f} s (Ctrl-C stops)")


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


def show_saved(screen: Screen, log: ConversationLog, which: str, raw: bool) -> None:
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
        live = LiveMarkdown(screen)
        live.feed(turn.text)
        live.end()
    else:
        screen.text(turn.text)
    if turn.stopped:
        screen.line(styled("(stopped)", "dim"))


_DRAW_EVERY_S = 0.05
_MOST_ROWS = 8


class LiveMarkdown:
    """One reply. Only the last rows of the text are held back for drawing; `end` finishes them."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._blocks = Blocks()
        self._tail = _Tail(screen)
        self._gap = False  # a blank line is due before the next block
        self._drawn_at = 0.0

    def feed(self, text: str) -> None:
        """Take a piece of the reply."""
        for block in self._blocks.feed(clean(text)):
            self._print(block)
        if (now := time.monotonic()) - self._drawn_at >= _DRAW_EVERY_S:
            self._drawn_at = now
            self._tail.draw(self._blocks.rest)

    def end(self) -> None:
        """Print what is left, also of a reply that broke off. The cursor is at the start of a line then."""
        plain = False
        for block in self._blocks.end():
            self._print(block)
            plain = not block.text.endswith("\n") and block.kind != "markdown"
        self._tail.erase()
        if plain:
            self._screen.drawn("\n")
        self._gap = False

    def _print(self, block: Block) -> None:
        self._tail.erase()
        self._drawn_at = 0.0
        text = block.text
        if block.kind != "markdown":
            before = "\n" if self._gap else ""
            self._gap = False
            self._screen.drawn(before + (_dim(text) if block.kind == "fence" else text))
            return
        if text.strip():
            from mscli.cli.markdown_view import rendered  # rich, which takes a fifth of a second

            self._screen.drawn(("\n" if self._gap else "") + rendered(text, self._screen.width or 80))
            self._gap = text.endswith("\n\n")


class _Tail:
    """The last rows of an unfinished text, which can be taken off the screen again."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._rows: list[str] = []
        self._width = 0
        # A terminal that is made narrower wraps its lines anew; xterm does not.
        self._reflows = "XTERM_VERSION" not in os.environ

    def draw(self, text: str) -> None:
        """Show the end of this text."""
        width, height = self._screen.width or 80, self._screen.height
        most = max(1, min(_MOST_ROWS, height // 3))
        rows = rows_of(text[-most * width :].expandtabs(), max(1, width - 1))[-most:]
        if rows == self._rows and width == self._width:
            return
        self._screen.drawn(self._erasure() + "\n".join(rows))
        self._rows, self._width = rows, width

    def erase(self) -> None:
        """Take it off the screen."""
        if self._rows:
            self._screen.drawn(self._erasure())
            self._rows = []

    def _erasure(self) -> str:
        if not self._rows:
            return ""
        width = self._screen.width or 80
        narrow = self._reflows and width < self._width
        taken = sum(max(1, -(-cells(row) // width)) for row in self._rows) if narrow else len(self._rows)
        return "\r" + (f"\x1b[{taken - 1}A" if taken > 1 else "") + "\x1b[J"


def _dim(text: str) -> str:
    line = text.removesuffix("\n")
    return f"\x1b[2m{line}\x1b[0m" + text[len(line) :]
