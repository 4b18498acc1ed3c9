"""The clipboard: by the desktop's own programs, and for writing also through the terminal, which works over SSH."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

from mscli.errors import Code, MscliError

if TYPE_CHECKING:
    from mscli.cli.screen import Screen

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
        screen.drawn(f"\x1b]52;c;{base64.b64encode(text.encode()).decode()}\x07")
        screen.note(f"sent {size} to the terminal's clipboard; some terminals do not allow that", "dim")
    else:
        raise MscliError(Code.FILE, "there is no clipboard here", "Install wl-clipboard (Wayland) or xclip (X11).")


def image() -> bytes:
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
        if os.environ.get("WAYLAND_DISPLAY") and shutil.which("wl-paste"):
            found.append(["wl-paste", "--no-newline", "--type", kind])
        if os.environ.get("DISPLAY") and shutil.which("xclip"):
            found.append(["xclip", "-selection", "clipboard", "-t", kind, "-o"])
    return found


def _write(text: str) -> str | None:
    """The program that took the text; None where none did."""
    ways = {
        "wl-copy": ("WAYLAND_DISPLAY", ["wl-copy"]),
        "xclip": ("DISPLAY", ["xclip", "-selection", "clipboard"]),
    }
    for program, (display, argv) in ways.items():
        if os.environ.get(display) and shutil.which(program) and _run(argv, text.encode()) is not None:
            return program
    return None


def _run(argv: list[str], given: bytes | None) -> bytes | None:
    """What a program prints; None where it fails. xclip stays to serve what it was given: its output is not waited for
    then."""
    output = subprocess.PIPE if given is None else subprocess.DEVNULL
    try:
        done = subprocess.run(argv, input=given or b"", stdout=output, stderr=subprocess.DEVNULL, timeout=_WAIT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return bytes(done.stdout or b"") if done.returncode == 0 else None
