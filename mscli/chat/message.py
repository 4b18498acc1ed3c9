"""Messages as OpenAI-compatible servers take them, images included."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from mscli.errors import Code, MscliError

Message = dict[str, Any]
_MAX_IMAGE_BYTES = 50 * 2**20
_MAGIC = ((b"\x89PNG\r\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"), (b"BM", "image/bmp"))


def system(text: str) -> Message:
    """A system prompt."""
    return {"role": "system", "content": text}


def user(text: str, images: tuple[Path, ...] = ()) -> Message:
    """A user's turn. Images are sent inside the message, as data URLs: the server never reads the user's disk.

    Raises FILE for an image that is missing, too large or of an unknown format.
    """
    if not images:
        return {"role": "user", "content": text}
    parts: list[Message] = [{"type": "image_url", "image_url": {"url": data_url(path)}} for path in images]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def assistant(text: str) -> Message:
    """A reply that was given. Reasoning is left out, as the models' makers advise for longer conversations."""
    return {"role": "assistant", "content": text}


def data_url(path: Path) -> str:
    """The image file as a data URL; its format is told by its first bytes, not by its name."""
    try:
        content = path.expanduser().read_bytes()
    except OSError as fault:
        raise MscliError(Code.FILE, f"image {path}: {fault.strerror}", "Give the path of an image file.") from fault
    if len(content) > _MAX_IMAGE_BYTES:
        raise MscliError(Code.FILE, f"image {path} has {len(content)} bytes, more than 50 MiB", "Make it smaller.")
    return f"data:{_media_type(path, content)};base64,{base64.b64encode(content).decode()}"


def _media_type(path: Path, content: bytes) -> str:
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    for magic, media_type in _MAGIC:
        if content.startswith(magic):
            return media_type
    raise MscliError(Code.FILE, f"{path} is no PNG, JPEG, WebP, GIF or BMP image", "Convert it, then send it again.")
