"""A conversation: its turns, which of them are still sent, and what they cost; and where it is saved: in an SQLite
database of the user's alone.

What goes wrong with that (damaged, locked, read-only, a full disk) is one MscliError for the caller to tell of: the
conversation itself goes on. Nothing here asks or prints.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mscli.chat import message
from mscli.chat.message import Message
from mscli.errors import Code, MscliError
from mscli.frozen import frozen, replace

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
            return self.estimate()
        last = self.turns[-1]
        return (last.prompt_tokens or 0) + (last.completion_tokens or 0)

    def estimate(self) -> int:
        """About how many tokens the turns that are sent have."""
        return message.estimated_tokens(self.messages(None))

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


# How long another process may hold the database: so long a person waits at most, and once.
_LOCKED_S = 1.0
_VERSION = 1
_LONGEST_TITLE = 200
_SCHEMA = """
CREATE TABLE IF NOT EXISTS conversation (
    number INTEGER PRIMARY KEY AUTOINCREMENT, begun REAL NOT NULL, changed REAL NOT NULL, instance TEXT NOT NULL,
    model TEXT NOT NULL, title TEXT NOT NULL, system TEXT, left_out INTEGER NOT NULL, summary TEXT
);
CREATE TABLE IF NOT EXISTS turn (
    conversation INTEGER NOT NULL, place INTEGER NOT NULL, at REAL NOT NULL, asked TEXT NOT NULL, text TEXT NOT NULL,
    reasoning TEXT NOT NULL, prompt_tokens INTEGER, completion_tokens INTEGER, seconds REAL NOT NULL,
    stopped INTEGER NOT NULL, PRIMARY KEY (conversation, place)
);
"""


@frozen
class Entry:
    """A saved conversation in a list. `begun` and `changed`: seconds since the epoch. `title`: its first words."""

    number: int
    begun: float
    changed: float
    instance: str
    model: str
    turns: int
    title: str


class ConversationLog:
    """Saves conversations and finds them again. Every method raises FILE or DISK_FULL where the database does not work,
    and waits a second at most for another process that writes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def save(self, conversation: Conversation, instance: str, model: str) -> None:
        """Save the conversation as it is now: its last turn, and what was taken back. One without a turn is not kept.

        Sets its number the first time."""
        if not conversation.turns and conversation.number is None:
            return
        with self._open(create=True) as base:
            self._save_head(base, conversation, instance, model)
            place = len(conversation.turns) - 1
            base.execute("DELETE FROM turn WHERE conversation = ? AND place >= ?", (conversation.number, max(0, place)))
            if conversation.turns:
                base.execute("INSERT INTO turn VALUES (?,?,?,?,?,?,?,?,?,?)", _row(conversation, place))

    def _save_head(self, base: sqlite3.Connection, conversation: Conversation, instance: str, model: str) -> None:
        now = time.time()
        head = (now, instance, model, conversation.system, conversation.left_out, conversation.summary)
        if conversation.number is not None:
            base.execute(
                "UPDATE conversation SET changed=?, instance=?, model=?, system=?, left_out=?, summary=?"
                " WHERE number=?",
                (*head, conversation.number),
            )
            return
        title = " ".join(words_of(conversation.turns[0].asked).split())[:_LONGEST_TITLE]
        done = base.execute(
            "INSERT INTO conversation (changed, instance, model, system, left_out, summary, begun, title)"
            " VALUES (?,?,?,?,?,?,?,?)",
            (*head, now, title),
        )
        conversation.number = done.lastrowid

    def load(self, number: int | None) -> tuple[Conversation, Entry]:
        """The conversation of this number, or the last one that was changed. Raises USAGE where there is none."""
        entry = next((each for each in self.entries(1, number)), None)
        if entry is None:
            what = "no conversation is saved" if number is None else f"there is no conversation {number}"
            raise MscliError(Code.USAGE, what, "Saved conversations: mscli chat --list")
        with self._open() as base:
            system, left_out, summary = base.execute(
                "SELECT system, left_out, summary FROM conversation WHERE number=?", (entry.number,)
            ).fetchone()
            rows = base.execute(
                "SELECT asked, text, reasoning, at, prompt_tokens, completion_tokens, seconds, stopped FROM turn"
                " WHERE conversation=? ORDER BY place",
                (entry.number,),
            ).fetchall()
            turns = [replace(Turn(json.loads(asked), *row), stopped=bool(stopped)) for asked, *row, stopped in rows]
        return Conversation(system, turns, entry.number, left_out, summary), entry

    def entries(self, most: int, number: int | None = None) -> tuple[Entry, ...]:
        """The conversations that were changed last, the newest first; with a number, that one."""
        if not self._path.exists():
            return ()
        with self._open() as base:
            rows = base.execute(
                "SELECT number, begun, changed, instance, model,"
                " (SELECT count(*) FROM turn WHERE conversation = number), title FROM conversation"
                " WHERE ?1 IS NULL OR number = ?1 ORDER BY changed DESC, number DESC LIMIT ?2",
                (number, most),
            ).fetchall()
        return tuple(Entry(*row) for row in rows)

    @contextmanager
    def _open(self, create: bool = False) -> Iterator[sqlite3.Connection]:
        """The database within one transaction."""
        try:
            if create:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600))
            base = sqlite3.connect(self._path, timeout=_LOCKED_S)
            try:
                with base:
                    self._prepare(base, create)
                    yield base
            finally:
                base.close()
        except (sqlite3.Error, OSError, ValueError, TypeError) as fault:  # the last two: rows that others wrote
            raise self._fault(fault) from fault

    def _prepare(self, base: sqlite3.Connection, create: bool) -> None:
        found = base.execute("PRAGMA user_version").fetchone()[0]
        if found > _VERSION:
            raise sqlite3.DatabaseError("a newer mscli wrote it")
        if create and found < _VERSION:
            base.executescript(_SCHEMA + f"PRAGMA user_version = {_VERSION};")

    def _fault(self, fault: Exception) -> MscliError:
        full = "full" in str(fault) or getattr(fault, "errno", None) in (28, 122)
        words = getattr(fault, "strerror", None) or str(fault)
        hint = f"Free disk space, or leave conversations unsaved: mscli chat --no-log ({self._path})"
        if not full:
            hint = f"To start a new log: mv {self._path} {self._path}.old. To do without: mscli config set log false"
        return MscliError(Code.DISK_FULL if full else Code.FILE, f"the log of conversations: {words}", hint)


def _row(conversation: Conversation, place: int) -> tuple[object, ...]:
    turn = conversation.turns[place]
    asked = json.dumps(turn.asked, ensure_ascii=False)
    return (
        conversation.number, place, turn.at, asked, turn.text, turn.reasoning,
        turn.prompt_tokens, turn.completion_tokens, turn.seconds, int(turn.stopped),
    )  # fmt: skip
