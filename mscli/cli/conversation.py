"""A conversation on a terminal: what is typed goes to the model or to a command."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mscli.chat import message
from mscli.chat.conversation import Conversation
from mscli.cli.attachments import copy, pasted_images
from mscli.cli.layout import count
from mscli.cli.prompt import Prompt
from mscli.cli.reply_view import show_turn
from mscli.cli.talk import Saving, Shown, Talk
from mscli.errors import Code, MscliError
from mscli.frozen import replace

if TYPE_CHECKING:
    from mscli.chat.image import Image
    from mscli.chat.reply import Target
    from mscli.cli.screen import Screen


Command = Callable[[Talk, str], None]
_OTHERS_WORDS = {
    "/reset": "/clear", "/exit": "/bye", "/quit": "/bye", "/?": "/help", "/compact": "/summarize",
    "/summarise": "/summarize", "/regenerate": "/retry", "/keep_thoughts": "/keep-thoughts",
}  # fmt: skip
_SETTINGS = {"temperature": float, "top_p": float, "max_tokens": int}
_SWITCH = ("on", "off")


def take(talk: Talk, line: str) -> bool:
    """Act on what the user typed; False when the conversation is over. Faults are reported, never raised."""
    talk.stopped = False
    word, _, rest = line.strip().partition(" ")
    word = _OTHERS_WORDS.get(word, word)
    if word == "/bye":
        return False
    try:
        if word.startswith("/") and "/" not in word[1:]:
            _command(talk, word, rest.strip())
        elif line.strip():
            _message(talk, line)
    except MscliError as fault:
        talk.screen.error(fault)
    except KeyboardInterrupt:
        talk.screen.note("(stopped)", "dim")
        talk.stopped = True
    return True


def _message(talk: Talk, line: str) -> None:
    """Send a message, with the images whose paths stand in it; where nothing else does, they wait for the next."""
    paths, rest = pasted_images(line)
    if paths:
        talk.attach(paths)
    if rest:
        talk.ask(talk.turn(line))


def meanings(commands: Mapping[str, tuple[str, str, Command | None]]) -> dict[str, str]:
    """Each command with what it does."""
    return {name: meaning for name, (_, meaning, _) in commands.items()}


def words() -> dict[str, tuple[str, ...]]:
    """What may follow a command, for completion: the words; none: a path."""
    from mscli.instances.store import Store
    from mscli.paths import places

    return {
        "/image": (), "/file": (), "/set": tuple(_SETTINGS), "/think": _SWITCH, "/keep-thoughts": _SWITCH,
        "/copy": ("code",), "/model": Store(places()).names(),
    }  # fmt: skip


def _command(talk: Talk, word: str, rest: str) -> None:
    if word not in COMMANDS:
        talk.screen.note(f"unknown command {word}", "yellow")
    action = COMMANDS.get(word, ("", "", None))[2] or _help
    action(talk, rest)


def _help(talk: Talk, _rest: str) -> None:
    from mscli.cli.prompt import KEYS

    typed = {f"{name} {takes}".rstrip(): meaning for name, (takes, meaning, _) in COMMANDS.items()}
    width = max(map(len, typed))
    rows = [f"{how:{width}}  {meaning}" for how, meaning in typed.items()]
    talk.screen.note("\n".join(rows) + f"\n{KEYS}")


def _retry(talk: Talk, _rest: str) -> None:
    asked = talk.failed
    if asked is None:
        turn = talk.conversation.undo()
        if turn is None:
            talk.screen.note("nothing has been asked yet")
            return
        asked = turn.asked
    talk.ask(asked)


def _undo(talk: Talk, _rest: str) -> None:
    talk.failed = None
    if talk.conversation.undo() is None:
        talk.screen.note("nothing to undo")
        return
    talk.save()
    talk.screen.note("removed the last message and its reply")


def _clear(talk: Talk, _rest: str) -> None:
    _begin(talk, talk.conversation.system)
    talk.screen.note("started over; the conversation before is in mscli chat --list, if it was saved")


def _system(talk: Talk, text: str) -> None:
    _begin(talk, text or None)
    talk.screen.note("started over with this system prompt" if text else "started over without a system prompt")


def _begin(talk: Talk, system: str | None) -> None:
    talk.conversation = Conversation(system, keep_thoughts=talk.conversation.keep_thoughts)
    talk.failed, talk.images, talk.files = None, (), ()


def _drop(talk: Talk, rest: str) -> None:
    if rest and not (rest.isdecimal() and int(rest)):
        raise MscliError(Code.USAGE, f"/drop {rest}: not a number of turns", "For example: /drop 2")
    talk.drop(int(rest) if rest else None)


def _summarize(talk: Talk, _rest: str) -> None:
    talk.summarize()


def _image(talk: Talk, rest: str) -> None:
    talk.attach(_named(rest))


def _file(talk: Talk, rest: str) -> None:
    paths = tuple(map(Path, _named(rest)))
    for path in paths:
        message.text_file(path)
    talk.files += paths
    talk.screen.note(f"{count(len(talk.files), 'file')} for the next message", "dim")


def _set(talk: Talk, rest: str) -> None:
    name, _, value = rest.partition(" ")
    try:
        number = _SETTINGS[name](value)
    except (KeyError, ValueError, OverflowError):
        raise MscliError(
            Code.USAGE,
            f"cannot set {rest!r}",
            "Type /set temperature 0.3, top_p 0.9 or max_tokens 200.",
        ) from None
    if not 0 <= number < 1e9 or (name == "max_tokens" and number < 1) or (name == "top_p" and number > 1):
        raise MscliError(Code.USAGE, f"{name} can't be {value}", "Type /set temperature 0.3, for example.")
    talk.target = replace(talk.target, sampling=replace(talk.target.sampling, **{name: number}))
    talk.screen.note(f"{name} is {number} from now on", "dim")


def _think(talk: Talk, rest: str) -> None:
    talk.shown = replace(talk.shown, think=_switch("/think", rest))
    talk.screen.note(f"reasoning {'shown' if talk.shown.think else 'not shown'}")


def _keep_thoughts(talk: Talk, rest: str) -> None:
    talk.conversation.keep_thoughts = _switch("/keep-thoughts", rest)
    what = "sent along" if talk.conversation.keep_thoughts else "not sent"
    talk.screen.note(f"the reasoning of earlier replies is {what} from now on")


def _switch(command: str, word: str) -> bool:
    if word and word not in _SWITCH:
        raise MscliError(Code.USAGE, f"{command} {word}: unknown value", f"Type {command} on, or {command} off.")
    return word != "off"


def _model(talk: Talk, rest: str) -> None:
    from mscli.chat.reply import target_of
    from mscli.instances.records import Records, the_one
    from mscli.paths import places

    if rest:
        talk.target = target_of(the_one(Records(places()), rest, "/model"))
    talk.screen.note(f"talking to {talk.target.model} ({talk.target.name})")


def _copy(talk: Talk, rest: str) -> None:
    if not talk.conversation.turns:
        talk.screen.note("there is no reply yet")
        return
    copy(talk.screen, talk.conversation.turns[-1].text, rest)


def _stats(talk: Talk, _rest: str) -> None:
    turns = talk.conversation.turns
    written = sum(turn.completion_tokens or 0 for turn in turns)
    seconds = sum(turn.seconds for turn in turns)
    talk.screen.note(f"{count(len(turns), 'reply', 'replies')}, {count(written, 'token')}, {seconds:.1f} s")
    used, context = talk.conversation.used_tokens, talk.target.context
    if used and context:
        talk.screen.note(f"context {used:,} of {context:,} tokens ({used / context:.0%})")
    if left_out := talk.conversation.left_out:
        summary = ", a summary stands for them" if talk.conversation.summary else ""
        talk.screen.note(f"{count(left_out, 'turn')} left out{summary}")


def _named(words: str) -> tuple[str, ...]:
    """The files named behind a command. Raises USAGE for none, or for a quote that does not end."""
    try:
        named = tuple(shlex.split(words))
    except ValueError as fault:
        raise MscliError(Code.USAGE, f"{words}: {fault}", "Quote a path with blanks: '/a path/b.png'") from None
    if not named:
        raise MscliError(Code.USAGE, "no file given", "Type the path after it.")
    return named


# Name -> what follows it, what it does, and the function that does it.
COMMANDS: Mapping[str, tuple[str, str, Command | None]] = {
    "/help": ("", "show this list", None),
    "/image": ("FILE|clipboard", "send an image with the next message", _image),
    "/file": ("FILE ...", "send text files with the next message", _file),
    "/retry": ("", "ask the last message again", _retry),
    "/undo": ("", "remove the last message and its reply", _undo),
    "/clear": ("", "start over", _clear),
    "/drop": ("[N]", "leave out the N oldest turns (default: half the context)", _drop),
    "/summarize": ("", "replace the oldest turns by a summary", _summarize),
    "/system": ("TEXT", "set the system prompt and start over", _system),
    "/set": ("NAME VALUE", "set temperature, top_p or max_tokens for the next replies", _set),
    "/think": ("on|off", "show the reasoning", _think),
    "/keep-thoughts": ("on|off", "send the reasoning of earlier replies along", _keep_thoughts),
    "/model": ("NAME", "go on with another instance", _model),
    "/copy": ("[code]", "copy the last reply, or its last code block", _copy),
    "/stats": ("", "show replies, tokens and time so far", _stats),
    "/bye": ("", "quit (or Ctrl-D)", None),
}


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
