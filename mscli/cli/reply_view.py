"""A reply as the user sees it come in: a sign of life, thoughts, the answer, and what has to be said of it; and saved
conversations (`mscli chat --list` and `--show`)."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mscli.chat.conversation import ConversationLog, Turn, images_of, words_of
from mscli.cli.layout import Column, ago, count, styled
from mscli.cli.screen import Screen
from mscli.errors import Code, MscliError

if TYPE_CHECKING:
    from mscli.chat.message import Message
    from mscli.chat.reply import Reply, Target
    from mscli.chat.stream import Piece
    from mscli.cli.live_markdown import LiveMarkdown


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
        self._live = _live(screen) if screen.renders and not raw else None
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


def _live(screen: Screen) -> LiveMarkdown:
    from mscli.cli.live_markdown import LiveMarkdown

    return LiveMarkdown(screen)


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
        from mscli.cli.live_markdown import LiveMarkdown

        live = LiveMarkdown(screen)
        live.feed(turn.text)
        live.end()
    else:
        screen.text(turn.text)
    if turn.stopped:
        screen.line(styled("(stopped)", "dim"))
