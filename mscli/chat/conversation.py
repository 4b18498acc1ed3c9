"""A conversation: its turns, which of them are still sent, and what they cost. Nothing here asks or prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mscli.chat import message
from mscli.chat.message import Message
from mscli.frozen import frozen

SUMMARY_REQUEST = (
    "Summarize our conversation so far in at most 200 words, for yourself to go on from: what was asked, what was "
    "found or decided, names, figures and what is still open. Write nothing else."
)


@frozen
class Turn:
    """What was asked, and the reply to it. `at`: seconds since the epoch. Token counts are the server's, None where it
    told none. `stopped`: the user ended the reply, so that the text is its beginning."""

    asked: Message
    text: str
    reasoning: str = ""
    at: float = 0.0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    seconds: float = 0.0
    stopped: bool = False


@dataclass
class Conversation:
    """The turns so far. `number`: under which it is saved, None before that.

    `left_out`: so many of the oldest turns are no longer sent; `summary` stands for them, None: nothing does.
    `keep_thoughts`: whether the reasoning of earlier replies is sent along.
    """

    system: str | None = None
    turns: list[Turn] = field(default_factory=list)
    number: int | None = None
    left_out: int = 0
    summary: str | None = None
    keep_thoughts: bool = False
    _counted: bool = True  # whether the last reply's count is of what is sent now

    @property
    def sent(self) -> list[Turn]:
        """The turns that are still sent."""
        return self.turns[self.left_out :]

    def messages(self, asked: Message | None, thinks_in_text: bool = False) -> list[Message]:
        """What is sent to the model with `asked` at its end. `thinks_in_text`: the reasoning is part of a reply's text
        for this model."""
        made = [message.system(self.system)] if self.system else []
        if self.summary is not None:
            made += [message.user(SUMMARY_REQUEST), message.assistant(self.summary)]
        for turn in self.sent:
            thought = turn.reasoning if self.keep_thoughts else ""
            made += [turn.asked, message.assistant(turn.text, thought, thinks_in_text)]
        return [*made, asked] if asked else made

    @property
    def used_tokens(self) -> int:
        """The tokens of the context that the conversation takes, by the last reply's own count; 0: not told."""
        if not self.sent:
            return 0
        if not self._counted:
            return self.estimate(None)
        last = self.turns[-1]
        return (last.prompt_tokens or 0) + (last.completion_tokens or 0)

    def estimate(self, asked: Message | None) -> int:
        """About how many tokens are sent with `asked`."""
        return message.estimated_tokens(self.messages(asked))

    def add(self, turn: Turn) -> None:
        """Add a turn to the end."""
        self.turns.append(turn)
        self._counted = True

    def undo(self) -> Turn | None:
        """Take the last turn back; None where there is none that is still sent."""
        return self.turns.pop() if self.sent else None

    def leave_out(self, turns: int, summary: str | None = None) -> int:
        """No longer send the oldest `turns` of those that are sent; how many these were. One at least stays.

        A summary of what is left out may stand for it; without one an earlier summary is left out too."""
        dropped = min(turns, max(0, len(self.sent) - 1))
        self.left_out += dropped
        self.summary = summary
        self._counted = False
        return dropped

    def too_many(self, tokens: int) -> int:
        """How many of the oldest turns to leave out so that the rest takes about `tokens` at most."""
        sent = self.sent
        for number in range(len(sent)):
            rest = message.estimated_tokens(_flat(sent[number:]))
            if rest <= tokens:
                return number
        return max(0, len(sent) - 1)


def _flat(turns: Sequence[Turn]) -> list[Message]:
    return [each for turn in turns for each in (turn.asked, message.assistant(turn.text))]


def words_of(asked: Message) -> str:
    """The text of a user's turn."""
    content = asked.get("content")
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text")) for part in content or () if part.get("type") == "text")


def images_of(asked: Message) -> int:
    """How many images a user's turn holds."""
    content = asked.get("content")
    return 0 if isinstance(content, str) else sum(part.get("type") == "image_url" for part in content or ())
