"""What a conversation on a terminal holds and does: a question asked, shown, kept and saved, and what it cost told."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mscli.chat import message
from mscli.chat.conversation import SUMMARY_REQUEST, Conversation, ConversationLog, Turn
from mscli.chat.message import Message
from mscli.cli import attachments
from mscli.cli.layout import count
from mscli.cli.reply_view import Stopped, say
from mscli.cli.screen import Screen
from mscli.errors import MscliError
from mscli.frozen import frozen, replace

if TYPE_CHECKING:
    from mscli.chat.image import Image
    from mscli.chat.reply import Reply, Target

# From this share of the context on a conversation will soon not fit any more.
NEARLY_FULL = 0.85
_LONGEST_SUMMARY = 500


@frozen
class Shown:
    """What of a reply is shown. `think`: the reasoning; `raw`: Markdown as it is."""

    think: bool
    raw: bool = False


class Saving:
    """Saves a conversation after each turn. Where that fails it says so once, and the conversation goes on."""

    def __init__(self, screen: Screen, log: ConversationLog | None) -> None:
        self._screen, self._log = screen, log

    def save(self, conversation: Conversation, target: Target) -> None:
        """Save it as it is now."""
        if self._log is None:
            return
        try:
            self._log.save(conversation, target.name, target.model)
        except MscliError as fault:
            self._log = None
            self._screen.note(f"warning: this conversation is not saved: {fault.message}", "yellow")
            self._screen.note(fault.hint, "dim")


class Talk:
    """A conversation that goes on: the instance it is held with, and what goes along with the next message."""

    def __init__(
        self, screen: Screen, target: Target, conversation: Conversation, saving: Saving, shown: Shown
    ) -> None:
        self.screen, self.target, self.conversation, self.shown = screen, target, conversation, shown
        self.images: tuple[Image, ...] = ()
        self.files: tuple[Path, ...] = ()
        self.failed: Message | None = None  # the last message, where no reply to it was kept
        self.stopped = False
        self._saving = saving

    def turn(self, line: str) -> Message:
        """The user's turn, with the files and images that were named before it."""
        text = "\n\n".join([line, *map(message.text_file, self.files)])
        asked = message.user(text, [image.data_url for image in self.images])
        self.images, self.files = (), ()
        return asked

    def attach(self, named: Sequence[str]) -> None:
        """Let images go with the next message. Raises FILE for one that cannot be read."""
        self.images += attachments.images(self.screen, named)
        names = ", ".join(f"{image.name.rpartition('/')[2][:60]}{_about(image)}" for image in self.images)
        self.screen.note(f"with the next message: {names}", "dim")

    def ask(self, asked: Message) -> None:
        """Send a message, show the reply and keep both. Raises as `reply.ask` does; then nothing is kept."""
        self.failed, self.stopped = asked, False
        sent = self.conversation.messages(asked, self.target.splits_think)
        try:
            self._check_room(sent)
            reply = say(self.screen, self.target, sent, self.shown.think, self.shown.raw)
        except Stopped as stop:
            self.stopped = True
            if stop.text:
                self._keep(Turn(asked, stop.text, stop.reasoning, time.time(), stopped=True))
            kept = "its beginning is kept; " if stop.text else ""
            self.screen.note(f"(stopped; {kept}/retry asks again, Ctrl-C again quits)", "dim")
            return
        self._keep(turn_of(asked, reply))
        self.screen.note(cost(reply, self.target.context), "dim")
        self.tell_room()

    def _check_room(self, sent: list[Message]) -> None:
        try:
            attachments.check_room(self.screen, self.target, sent)
        except MscliError as fault:
            if len(self.conversation.sent) > 1:
                fault.hint = "Leave the oldest turns out with /drop, then type /retry."
            raise

    def _keep(self, turn: Turn) -> None:
        self.conversation.add(turn)
        self.failed = None
        self.save()

    def save(self) -> None:
        """Save the conversation as it is now."""
        self._saving.save(self.conversation, self.target)

    def tell_room(self) -> None:
        """Say so when the next turns may not fit."""
        used, context = self.conversation.used_tokens, self.target.context
        if context and used >= NEARLY_FULL * context:
            self.screen.note(
                f"the context is {used / context:.0%} full: /summarize replaces the oldest turns by a summary, "
                "/drop leaves them out, /clear starts over",
                "yellow",
            )

    def drop(self, turns: int | None) -> None:
        """No longer send the oldest turns; None: as many as leave half of the context free."""
        wanted = self._too_many() if turns is None else turns
        dropped = self.conversation.leave_out(wanted)
        if not dropped:
            self.screen.note("nothing to leave out: the last turn stays (/clear starts over)")
            return
        self.save()
        self.screen.note(f"{count(dropped, 'turn')} left out; {self._sent()}")

    def summarize(self) -> None:
        """Let the model write a summary, which is sent in place of the oldest turns from now on."""
        wanted = self._too_many()
        if not wanted or len(self.conversation.sent) < 2:
            self.screen.note("nothing to summarize yet: at least two turns are needed")
            return
        limit = replace(self.target.sampling, max_tokens=_LONGEST_SUMMARY)
        sent = self.conversation.messages(message.user(SUMMARY_REQUEST), self.target.splits_think)
        try:
            reply = say(self.screen, replace(self.target, sampling=limit), sent, self.shown.think, self.shown.raw)
        except Stopped:
            self.screen.note("(stopped; nothing was left out)", "dim")
            return
        dropped = self.conversation.leave_out(wanted, reply.text)
        self.save()
        self.screen.note(f"this summary stands for {count(dropped, 'turn')} from now on; {self._sent()}")

    def _too_many(self) -> int:
        """How many turns to leave out so that half of the context is free; all but the last where it is not known."""
        context = self.target.context
        return max(1, self.conversation.too_many(context // 2)) if context else len(self.conversation.sent) - 1

    def _sent(self) -> str:
        turns, tokens = count(len(self.conversation.sent), "turn"), self.conversation.estimate()
        return f"{turns} still sent, about {tokens:,} tokens"


def _about(image: Image) -> str:
    size = f"{image.size[0]}x{image.size[1]}, about {image.tokens:,} tokens" if image.size else ""
    return f" ({size})" if size else ""


def turn_of(asked: Message, reply: Reply) -> Turn:
    """What is kept of a reply."""
    return Turn(
        asked, reply.text, reply.reasoning, time.time(), reply.prompt_tokens, reply.completion_tokens, reply.seconds
    )


def cost(reply: Reply, context: int | None) -> str:
    """What a reply took: tokens, speed, time to the first, and how much of the context is used now."""
    parts = [count(reply.completion_tokens, "token")] if reply.completion_tokens else []
    if reply.tokens_per_second:
        parts.append(f"{reply.tokens_per_second:.1f} tok/s")
    if reply.ttft_s is not None:
        parts.append(f"first token {reply.ttft_s:.2f} s")
    if (tokens := (reply.prompt_tokens or 0) + (reply.completion_tokens or 0)) and context:
        parts.append(f"context {tokens:,} of {context:,} ({tokens / context:.0%})")
    return ", ".join(parts) or f"{reply.seconds:.1f} s"
