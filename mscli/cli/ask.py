"""A prompt answered with what goes along with it, or a conversation opened. Nothing here needs Typer: see main.py."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING

from mscli.chat import message
from mscli.chat.conversation import Conversation, ConversationLog
from mscli.chat.message import Message
from mscli.cli.attachments import check_room, images
from mscli.cli.reply_view import number_of, say
from mscli.cli.screen import Screen
from mscli.cli.talk import Saving, Shown, turn_of
from mscli.errors import Code, MscliError
from mscli.frozen import frozen, replace
from mscli.paths import places

if TYPE_CHECKING:
    from mscli.chat.reply import Reply, Target

# How long standard input may be silent before that is said.
_SILENT_S = 3.0


@frozen
class Wishes:
    """What `mscli chat` was asked for beside its words: its options. None: the default.

    `stdin`: piped input is added to the prompt. `resume`: the conversation to go on with, by number, or "last".
    `log`: the conversation is saved.
    """

    instance: str | None = None
    system: str | None = None
    images: Sequence[str] = ()
    files: Sequence[Path] = ()
    max_tokens: int | None = None
    temperature: float | None = None
    schema: Path | None = None
    think: bool | None = None
    raw: bool = False
    stdin: bool = True
    resume: str | None = None
    log: bool = True


def ask(screen: Screen, words: Sequence[str], wishes: Wishes) -> None:
    """Answer the prompt among the words; without one, on a terminal, hold a conversation.

    Raises MscliError as the reply's errors say, USAGE for words that are no prompt.
    """
    name, prompt = _addressed(words, wishes.instance)
    conversation, name = _resumed(screen, wishes.resume, name)
    target = _target(name, wishes.max_tokens, wishes.temperature)
    if conversation is None:
        conversation = Conversation((target.system_prompt if wishes.system is None else wishes.system) or None)
    elif wishes.system is not None:
        conversation.system = wishes.system or None
    saving = Saving(screen, saved() if wishes.log else None)
    if prompt is None and sys.stdin and sys.stdin.isatty():
        _converse(screen, target, conversation, saving, wishes)
        return
    text = _prompt(screen, prompt, wishes.files, wishes.stdin)
    asked = message.user(text, [each.data_url for each in images(screen, wishes.images)])
    shown = Shown(screen.live if wishes.think is None else wishes.think, wishes.raw)
    reply = _answer(screen, target, conversation.messages(asked, target.splits_think), shown, wishes.schema)
    conversation.add(turn_of(asked, reply))
    saving.save(conversation, target)


def saved() -> ConversationLog:
    """The saved conversations."""
    return ConversationLog(places().conversations)


def _converse(screen: Screen, target: Target, conversation: Conversation, saving: Saving, wishes: Wishes) -> None:
    if screen.json_mode or wishes.schema:
        option = "--json" if screen.json_mode else "--schema"
        raise MscliError(Code.USAGE, f"{option} needs a prompt", "Give one, or pipe it in.")
    from mscli.cli.conversation import converse

    shown = Shown(wishes.think is not False, wishes.raw)
    converse(screen, target, conversation, images(screen, wishes.images), saving, shown)


def _answer(screen: Screen, target: Target, sent: list[Message], shown: Shown, file: Path | None) -> Reply:
    """The reply to one prompt, shown or as JSON. `file`: the schema that it has to follow.

    Raises REQUEST_FAILED where it does not, and where the prompt does not fit into the context."""
    schema = None
    if file is not None:
        from mscli.chat.message import schema_in

        schema = schema_in(file)
        sent = schema.messages(target.engine, sent)
    check_room(screen, target, sent)
    fields = schema.fields(target.engine) if schema else None
    if not screen.json_mode:
        reply = say(screen, target, sent, shown.think, shown.raw or schema is not None, fields)
        if schema:
            schema.parsed(reply.text)
        return reply
    from mscli.chat.reply import ask
    from mscli.instances.json_values import to_json

    reply = ask(target, sent, lambda _: None, fields=fields)
    speed = reply.tokens_per_second
    answer = {"answer": schema.parsed(reply.text)} if schema else {}
    data = {"instance": target.name, "model": target.model, **to_json(reply), **answer}
    screen.data({**data, "tokens_per_second": None if speed is None else round(speed, 2)})
    return reply


def _prompt(screen: Screen, prompt: str | None, files: Sequence[Path], stdin: bool) -> str:
    """The prompt with the files and the piped input. Raises USAGE where nothing is said."""
    in_place = prompt in (None, "-")
    piped = _piped(screen, in_place) if stdin else ""
    parts = [piped if in_place else prompt or "", *map(message.text_file, files), "" if in_place else piped]
    text = "\n\n".join(part for part in parts if part.strip())
    if not text:
        raise MscliError(Code.USAGE, "the prompt is empty", 'Say something: mscli chat "hello"')
    return text


def _resumed(screen: Screen, which: str | None, name: str | None) -> tuple[Conversation | None, str | None]:
    """A saved conversation to go on with (None: none was asked for), and the instance: the one named, or the one that
    it was held with if that still runs."""
    if which is None:
        return None, name
    from mscli.instances.records import Records, running

    conversation, entry = saved().load(number_of("--resume", which))
    if name is None and (record := Records(places()).get(entry.instance)) and running(record):
        name = record.name
    elif name is None:
        screen.note(f"{entry.instance} is not running; going on with what is", "dim")
    return conversation, name


def _piped(screen: Screen, wanted: bool) -> str:
    """Piped input. A prompt of one's own goes with it; a terminal, or a device, is only read where it is `wanted`.

    Raises USAGE for more than any context holds. Waits for the end, and says so after a while on a terminal.
    """
    if sys.stdin is None or not (wanted or _is_piped()):
        return ""
    said = Timer(_SILENT_S, screen.note, ["reading standard input until it ends (to skip it: --no-stdin)", "dim"])
    said.daemon = True
    said.start()
    try:
        text = sys.stdin.buffer.read(message.MAX_TEXT_BYTES + 1)
    finally:
        said.cancel()
    if len(text) > message.MAX_TEXT_BYTES:
        raise MscliError(
            Code.USAGE,
            "the piped input is larger than 16 MiB: no context holds it",
            "Send a part: tail -c 50000",
        )
    return text.decode("utf-8", "replace")


def _is_piped() -> bool:
    """True for a pipe, a file or a socket; not for a terminal or /dev/null."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _addressed(words: Sequence[str], instance: str | None) -> tuple[str | None, str | None]:
    """(the instance, the prompt): one word is always a prompt, of two the first names the instance. Raises USAGE."""
    if len(words) < 2:
        return instance, words[0] if words else None
    if len(words) > 2 or instance is not None:
        raise MscliError(
            Code.USAGE,
            f"{len(words)} arguments were given",
            'Quote the prompt: mscli chat "two words"',
        )
    return words[0], words[1]


def _target(name: str | None, max_tokens: int | None, temperature: float | None) -> Target:
    """The instance to ask, with the sampling wished for."""
    from mscli.chat.reply import target_of
    from mscli.instances.records import Records, the_one

    target = target_of(the_one(Records(places()), name, "mscli chat -i"))
    sampling = target.sampling
    if max_tokens is not None:
        # Ollama goes on beyond the context, and forgets the beginning.
        sampling = replace(sampling, max_tokens=min(max_tokens, target.context or max_tokens))
    if temperature is not None:
        sampling = replace(sampling, temperature=temperature)
    return replace(target, sampling=sampling)
