"""Images as users name them: a path, an address, base64. They are sent inside the message as data URLs, so that the
server never reads the user's disk, and no larger than the model takes where Pillow is here to shrink them."""

from __future__ import annotations

import base64
import binascii
import re
from io import BytesIO

from mscli.errors import Code, MscliError
from mscli.frozen import frozen
from mscli.paths import expanded

LONGEST_EDGE = 1540
"""Pixels: Mistral's vision encoder takes no more, and every engine shrinks what is larger."""

_MAX_BYTES = 50 * 2**20
_MOST_PIXELS = 100_000_000
_TOKEN_EDGE = 28  # pixels of a token's side: patches of 14, merged two by two
_MAGIC = ((b"\x89PNG\r\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"), (b"BM", "image/bmp"))
_BARE_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{100,}={0,2}\s*")


@frozen
class Image:
    """An image to send. `size`: width and height in pixels as they are sent, None: not known. `note`: what was changed,
    or will be."""

    name: str
    data_url: str
    size: tuple[int, int] | None = None
    note: str | None = None

    @property
    def tokens(self) -> int | None:
        """About how many tokens it takes of the context of a Mistral model."""
        if self.size is None:
            return None
        scale = min(1.0, LONGEST_EDGE / max(*self.size, 1))
        wide, high = (max(1, -(-round(edge * scale) // _TOKEN_EDGE)) for edge in self.size)
        return high * (wide + 1)


def load(named: str) -> Image:
    """The image at a path or an http(s) address, or given as a data URL or base64. Raises FILE for one that is missing,
    too large or no image. Waits for a download, at most a minute."""
    if named.startswith("data:"):
        return from_bytes("data URL", _decoded(named.partition(",")[2]))
    if named.startswith(("http://", "https://")):
        return from_bytes(named, _downloaded(named))
    path = expanded(named)
    if len(named) >= 100 and _BARE_BASE64.fullmatch(named):
        return from_bytes("base64", _decoded(named))
    try:
        with path.open("rb") as handle:
            return from_bytes(named, handle.read(_MAX_BYTES + 1))
    except OSError as fault:
        raise MscliError(
            Code.FILE, f"image {named[:200]}: {fault.strerror}", "Give the path of an image file."
        ) from fault
    except ValueError as fault:  # a null byte
        raise MscliError(Code.FILE, f"image {named[:200]!r}: {fault}", "Give the path of an image file.") from fault


def from_bytes(name: str, content: bytes) -> Image:
    """An image file's content. Its format is told by its first bytes, not by its name. Raises FILE."""
    if len(content) > _MAX_BYTES:
        raise MscliError(Code.FILE, f"image {name} is larger than 50 MiB", "Make it smaller.")
    kind = _media_type(name, content)
    size = _size(content, kind)
    note = None
    if kind == "image/webp" or (size and max(size) > LONGEST_EDGE):
        kind, content, size, note = _fitted(name, kind, content, size)
    return Image(name, f"data:{kind};base64,{base64.b64encode(content).decode()}", size, note)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as fault:
        raise MscliError(Code.FILE, f"the image is not valid base64: {fault}", "Give a path or an address.") from fault


def _downloaded(url: str) -> bytes:
    from mscli import http

    try:
        answer = http.request(url, limits=http.Limits(body_bytes=_MAX_BYTES))
    except http.HttpFault as fault:
        raise MscliError(Code.FILE, f"image {url}: {fault.seen}", "Download it, and give its path.") from fault
    if answer.status != 200:
        raise MscliError(Code.FILE, f"image {url}: HTTP {answer.status}", "Check the address.")
    return answer.body


def _media_type(name: str, content: bytes) -> str:
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    for magic, media_type in _MAGIC:
        if content.startswith(magic):
            return media_type
    raise MscliError(Code.FILE, f"{name} is not a PNG, JPEG, WebP, GIF or BMP image", "Convert it, then send it again.")


def _fitted(
    name: str, kind: str, content: bytes, size: tuple[int, int] | None
) -> tuple[str, bytes, tuple[int, int] | None, str | None]:
    """(kind, content, size, note) of an image that is made smaller, or whose format not every engine reads. Without
    Pillow it goes as it is."""
    shown = f"{size[0]}x{size[1]}" if size else ""
    try:
        from PIL import Image as pillow
        from PIL import ImageOps
    except ImportError:
        advice = f"image {name} is {shown}: the engine shrinks it (to send less: pip install 'mscli[images]')"
        return kind, content, size, advice if size and max(size) > LONGEST_EDGE else None
    try:
        with pillow.open(BytesIO(content)) as opened:
            if opened.width * opened.height > _MOST_PIXELS:
                raise ValueError(f"{opened.width}x{opened.height} pixels")
            made = ImageOps.exif_transpose(opened)
            made.thumbnail((LONGEST_EDGE, LONGEST_EDGE))
            jpeg = kind == "image/jpeg"
            out = BytesIO()
            made.convert("RGB" if jpeg else "RGBA").save(out, "JPEG" if jpeg else "PNG", quality=90)
    except (OSError, ValueError, SyntaxError, EOFError, pillow.DecompressionBombError) as fault:
        raise MscliError(
            Code.FILE, f"image {name} cannot be read: {fault}", "Convert it, then send it again."
        ) from fault
    smaller = f"image {name}: {shown} shrunk to {made.width}x{made.height}"
    note = smaller if size and max(size) > LONGEST_EDGE else None
    return "image/jpeg" if jpeg else "image/png", out.getvalue(), (made.width, made.height), note


def _size(content: bytes, kind: str) -> tuple[int, int] | None:
    """Width and height as the file's head tells them; None where it does not."""
    if kind == "image/png" and len(content) >= 24:
        return _edges(content, 16, 4, "big")
    if kind == "image/gif" and len(content) >= 10:
        return _edges(content, 6, 2, "little")
    if kind == "image/bmp" and len(content) >= 26:
        return _edges(content, 18, 4, "little")
    return _jpeg_size(content) if kind == "image/jpeg" else None


def _edges(content: bytes, at: int, length: int, order: str) -> tuple[int, int]:
    def edge(place: int) -> int:
        return int.from_bytes(content[place : place + length], "big" if order == "big" else "little")

    return edge(at), edge(at + length)


def _jpeg_size(content: bytes) -> tuple[int, int] | None:
    """From the frame's segment, which comes after any number of others."""
    at = 2
    while at + 9 < len(content) and content[at] == 0xFF:
        marker, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            high, wide = _edges(content, at + 5, 2, "big")
            return wide, high
        at += 2 + max(2, length)
    return None
