"""What goes along with a message: images however they are named, and whether all of it fits into the context."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from mscli.chat.message import Message, estimated_tokens, least_prompt_tokens
from mscli.cli.layout import count
from mscli.cli.screen import Screen
from mscli.errors import Code, MscliError

if TYPE_CHECKING:
    from mscli.chat.image import Image
    from mscli.chat.reply import Target

# About how many characters fit where so many tokens are free: for text with fewer of them a token.
_CHARACTERS_PER_TOKEN = 3
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
# A word as a terminal pastes a path: quoted, or with its blanks escaped.
_WORD = re.compile(r"""'([^'\n]+)'|"([^"\n]+)"|((?:\\.|[^\s\\'"])+)""")


def images(screen: Screen, named: Sequence[str]) -> tuple[Image, ...]:
    """The images: paths, addresses, data URLs, or `clipboard`. Says what is changed of them. Raises FILE."""
    if not named:
        return ()
    from mscli.chat import image
    from mscli.cli import clipboard

    found = []
    for each in named:
        made = image.from_bytes("clipboard", clipboard.image()) if each == "clipboard" else image.load(each)
        if made.note:
            screen.note(made.note, "dim")
        found.append(made)
    return tuple(found)


def pasted_images(line: str) -> tuple[list[str], str]:
    """(the paths of images that stand in a line, what else stands there): a file that is dropped on a terminal comes
    as its path."""
    found, rest = [], line
    for whole, path in _words(line):
        if path.lower().endswith(_SUFFIXES) and _is_file(path):
            found.append(path)
            rest = rest.replace(whole, "", 1)
    return found, rest.strip()


def check_room(screen: Screen, target: Target, messages: Sequence[Message]) -> None:
    """Say so before a prompt is sent that will not fit. Raises REQUEST_FAILED where that is certain."""
    context = target.context
    if not context:
        return
    least, about = least_prompt_tokens(messages), estimated_tokens(messages)
    free = max(0, context - (about - estimated_tokens(messages[-1:])))
    if least >= context:
        raise MscliError(
            Code.REQUEST_FAILED,
            f"the prompt has at least {least:,} tokens, the context holds {context:,}; nothing was sent",
            f"Send a part: tail -c {free * _CHARACTERS_PER_TOKEN}. Or start with a larger --ctx.",
            {"too_long": True},
        )
    if about > context:
        screen.note(
            f"warning: the prompt has about {count(about, 'token')}, the context holds {context:,}: it may not fit",
            "yellow",
        )


def _words(line: str) -> Iterator[tuple[str, str]]:
    for found in _WORD.finditer(line):
        text = found[1] or found[2] or re.sub(r"\\(.)", r"\1", found[3])
        yield found[0], unquote(text.removeprefix("file://")) if text.startswith("file://") else text


def _is_file(path: str) -> bool:
    try:
        return Path(path).expanduser().is_file()
    except (OSError, RuntimeError, ValueError):
        return False
