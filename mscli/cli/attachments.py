"""What goes along with a message: images however they are named, and whether all of it fits into the context.

And the clipboard: by the desktop's own programs, and for writing also through the terminal, which works over SSH.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from mscli.chat.message import Message, estimated_tokens, least_prompt_tokens
from mscli.cli.layout import count
from mscli.cli.screen import Screen
from mscli.errors import Code, MscliError
from mscli.paths import on_path

if TYPE_CHECKING:
    from mscli.chat.image import Image
    from mscli.chat.reply import Target


_WAIT_S = 5.0
_MOST_IMAGE_BYTES = 50 * 2**20
# Terminals take about so much in one sequence.
_MOST_OSC_BYTES = 74_000
_FENCED = re.compile(r"^ {0,3}(`{3,}|~{3,})[^\n]*\n(.*?)(?:^ {0,3}\1[`~]*[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)


def copy(screen: Screen, text: str, what: str) -> None:
    """Copy a reply, or with `what` "code" its last code block, and say how. Raises USAGE where there is none."""
    if what not in ("", "code"):
        raise MscliError(Code.USAGE, f"/copy {what}: unknown value", "Type /copy, or /copy code.")
    if what == "code":
        found = _FENCED.findall(text)
        if not found:
            raise MscliError(Code.USAGE, "the last reply has no code block", "/copy copies the whole reply.")
        text = found[-1][1]
    size = f"{len(text):,} characters"
    if by := _write(text):
        screen.note(f"copied {size} ({by})", "dim")
    elif screen.renders and len(text.encode()) <= _MOST_OSC_BYTES:
        import base64

        screen.drawn(f"\x1b]52;c;{base64.b64encode(text.encode()).decode()}\x07")
        screen.note(f"sent {size} to the terminal's clipboard; some terminals do not allow that", "dim")
    else:
        raise MscliError(Code.FILE, "there is no clipboard here", "Install wl-clipboard (Wayland) or xclip (X11).")


def clipboard_image() -> bytes:
    """The image in the clipboard. Raises FILE where there is none, or no program to read it with."""
    tried = False
    for argv in _readers():
        tried = True
        done = _run(argv, None)
        if done:
            return done[: _MOST_IMAGE_BYTES + 1]
    if tried:
        raise MscliError(Code.FILE, "there is no image in the clipboard", "Copy one, or give the path of a file.")
    raise MscliError(
        Code.FILE, "the clipboard cannot be read here", "Install wl-clipboard (Wayland) or xclip (X11), or give a file."
    )


def _readers() -> list[list[str]]:
    """The commands that print the clipboard's image, of the programs that are here."""

    found = []
    for kind in ("image/png", "image/jpeg"):
        if os.environ.get("WAYLAND_DISPLAY") and on_path("wl-paste"):
            found.append(["wl-paste", "--no-newline", "--type", kind])
        if os.environ.get("DISPLAY") and on_path("xclip"):
            found.append(["xclip", "-selection", "clipboard", "-t", kind, "-o"])
    return found


def _write(text: str) -> str | None:
    """The program that took the text; None where none did."""

    ways = {
        "wl-copy": ("WAYLAND_DISPLAY", ["wl-copy"]),
        "xclip": ("DISPLAY", ["xclip", "-selection", "clipboard"]),
    }
    for program, (display, argv) in ways.items():
        if os.environ.get(display) and on_path(program) and _run(argv, text.encode()) is not None:
            return program
    return None


def _run(argv: list[str], given: bytes | None) -> bytes | None:
    """What a program prints; None where it fails. xclip stays to serve what it was given: its output is not waited for
    then."""
    import subprocess  # few messages need it

    output = subprocess.PIPE if given is None else subprocess.DEVNULL
    try:
        done = subprocess.run(argv, input=given or b"", stdout=output, stderr=subprocess.DEVNULL, timeout=_WAIT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return bytes(done.stdout or b"") if done.returncode == 0 else None


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

    found = []
    for each in named:
        made = image.from_bytes("clipboard", clipboard_image()) if each == "clipboard" else image.load(each)
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
