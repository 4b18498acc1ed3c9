"""Ollama on this machine as several checks see it: looked at once, by whichever comes first."""

from __future__ import annotations

from pathlib import Path

from mscli.doctor.checks.check import CheckContext, Ran
from mscli.engines.engine import Installation
from mscli.engines.ollama.api import Api, Refusal
from mscli.engines.ollama.installation import told_version
from mscli.engines.ollama.server import Address, Server, Service, address, is_here, look, systemd_service
from mscli.frozen import frozen
from mscli.inventory.ports import listening

NAME = "ollama"
AREA = "ollama"
# A server on this machine answers within milliseconds, unless it hangs; the program asks it too for its version.
PROBE_TIMEOUT_S = 1.0
VERSION_TIMEOUT_S = 0.8


@frozen
class OllamaState:
    """`asked`: where clients of this shell look. `server`: the one that answers there, or where the service listens.

    `stranger`: how something else answers where clients look, or that it does not answer. `elsewhere`: OLLAMA_HOST is
    not what mscli can reach (HTTPS, a path); nobody was asked then.
    """

    asked: Address
    server: Server | None
    service: Service | None
    stranger: str | None
    elsewhere: bool


def ollama(ctx: CheckContext) -> OllamaState:
    """The server, the service and the port, as they are now."""
    return ctx.once("ollama", lambda: _look(ctx))


def program(ctx: CheckContext) -> Installation | None:
    """The copy of Ollama that this shell, or else mscli, would start; None where there is none."""
    return ctx.once("ollama program", lambda: _program(ctx))


def _look(ctx: CheckContext) -> OllamaState:
    service, asked = systemd_service(), address(ctx.env.get("OLLAMA_HOST", ""))
    if asked.scheme != "http" or asked.path:
        return OllamaState(asked, None, service, None, elsewhere=True)
    places = [asked]
    if service and service.active:
        places.append(address(service.environment.get("OLLAMA_HOST", "")))
    # A server started by hand, where OLLAMA_HOST has sent this shell's clients elsewhere.
    places.append(address(""))
    stranger = None
    for place in dict.fromkeys(places):
        version, words = _version(place)
        if version:
            return OllamaState(asked, look(place, version, service), service, stranger, elsewhere=False)
        if place == asked and is_here(place.host) and listening(place.port):
            stranger = words
    return OllamaState(asked, None, service, stranger, elsewhere=False)


def _version(place: Address) -> tuple[str | None, str | None]:
    """The version of the server at that place, or why there is none."""
    try:
        return Api(place.host, place.port).version(PROBE_TIMEOUT_S), None
    except Refusal as refusal:
        return None, refusal.words


def _program(ctx: CheckContext) -> Installation | None:
    own = ctx.places.engines / NAME / "bin" / NAME
    found = ctx.which(NAME)
    path = Path(found).absolute() if found else own
    told: Ran | None = ctx.run(str(path), "--version", timeout_s=VERSION_TIMEOUT_S)
    if told is None:
        return None
    return Installation(NAME, (str(path),), told_version(told.out + told.err), "program" if found else "own", path)
