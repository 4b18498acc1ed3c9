"""Faults of a pull through an Ollama server, told by the server's own words and by the connection to it."""

from __future__ import annotations

from collections.abc import Mapping

from mscli.engines.ollama.causes import cause
from mscli.errors import Code, MscliError
from mscli.weights.fault import PassingFault

# Causes that asking again may get rid of: the server goes on from where it stopped.
_PASSING = ("network_proxy", "corrupt_download", "stalled_download")
_CODES: Mapping[str, Code] = {
    "disk_full": Code.DISK_FULL,
    "permissions": Code.FILE,
    "version_backend_old": Code.ENGINE_UNSUPPORTED,
}
_REMEDIES: Mapping[str, str] = {
    "stalled_download": "Run the same command again: it goes on from where it stopped. If it stalls again, restart the "
    "server first.",
    "ollama_not_running": "See whether it runs: `mscli status`, `systemctl status ollama`.",
    "network_proxy": "Run the same command again: it goes on from where it stopped.",
}
_LOG = "The server's log may say more: `journalctl -u ollama -n 50`."


def fault(error: Exception, tag: str) -> PassingFault:
    """What an exception of the ollama package or of httpx below it stands for. Raises MscliError if it will not pass.

    `error` is a ResponseError (the server's words), a transport error, or a ValueError (no Ollama at the other end).
    """
    import httpx
    from ollama import ResponseError

    if isinstance(error, ResponseError):
        found = cause(error.error, None)
        words = f"the server says: {' '.join(error.error.split())}"
        if found.code not in _PASSING:
            raise _error(found.code, words, tag, found.remedy if found.code != "unknown" else _LOG)
        return _Said(found.code, words, found.remedy)
    if isinstance(error, (httpx.ConnectError, ConnectionError)):
        return PassingFault("ollama_not_running", "no Ollama server answers")
    if isinstance(error, httpx.TransportError):
        return PassingFault("network_proxy", f"the connection to the server broke ({error or type(error).__name__})")
    return PassingFault("network_proxy", "something answers that is no Ollama server")


def final(passing: PassingFault, tag: str) -> MscliError:
    """The error for the user once asking again has not helped."""
    remedy = passing.remedy if isinstance(passing, _Said) else _REMEDIES.get(passing.cause, _LOG)
    return _error(passing.cause, passing.seen, tag, remedy)


class _Said(PassingFault):
    """A passing fault in the server's words, with the remedy that belongs to them."""

    def __init__(self, cause: str, seen: str, remedy: str) -> None:
        super().__init__(cause, seen)
        self.remedy = remedy


def _error(code: str, seen: str, tag: str, remedy: str) -> MscliError:
    details = {"cause": code, "model": tag}
    return MscliError(_CODES.get(code, Code.DOWNLOAD_FAILED), f"Could not pull {tag}: {seen}.", remedy, details)
