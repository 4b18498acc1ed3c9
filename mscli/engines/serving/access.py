"""Who is let in: whoever brings a key, or, where none is asked for, what is no web page from elsewhere."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

from mscli.engines.serving.chat_request import RequestError

# What desktop programs call themselves, as Ollama lets them in.
_APPS = re.compile(r"(?:app|file|tauri|vscode-\w+)://")
Headers = Mapping[str, str]  # by names in small letters


class Keys:
    """The keys of a file, one per line; the file is read again when it has changed. Without a file none is asked for.

    A file that cannot be read, or holds none, lets nobody in.
    """

    def __init__(self, path: Path | None) -> None:
        self._path, self._seen, self._keys = path, (0, 0, 0), tuple[bytes, ...]()

    def admit(self, headers: Headers) -> None:
        """Raises RequestError for a request without one of the keys, or that may be a web page's from elsewhere."""
        if self._path is None:
            if not _ours(headers):
                raise RequestError("without an API key only this machine's own pages and addresses are served", 403)
        elif not self._allows(self._path, headers):
            raise RequestError("the API key is missing or wrong", 401)

    def _allows(self, path: Path, headers: Headers) -> bool:
        """Every comparison takes the same time."""
        try:
            now = path.stat()
            if (seen := (now.st_mtime_ns, now.st_size, now.st_ino)) != self._seen:
                self._keys, self._seen = tuple(path.read_bytes().split()), seen
        except OSError:
            self._keys = ()
        given = headers.get("authorization", "").removeprefix("Bearer ") or headers.get("x-api-key", "")
        return sum(hmac.compare_digest(given.encode("latin-1"), key) for key in self._keys) > 0


def _ours(headers: Headers) -> bool:
    """Whether a request's name for this server is not a stranger's, nor its page."""
    origin = headers.get("origin", "")
    own = not origin or _APPS.match(origin) or _local(origin.partition("://")[2] or origin)
    return bool(own) and _local(headers.get("host", ""))


def _local(authority: str) -> bool:
    """Whether a host and port is an address, or this machine by its usual name."""
    host = re.sub(r":\d*$", "", authority).strip("[]").lower()
    try:
        ip_address(host)
    except ValueError:
        return host in ("", "localhost") or host.endswith(".localhost")
    return True
