"""Whether a hub answers this process, step by step as a pull needs it: its API, the token, the bytes of one file.

Requests go the way of a pull's bytes: the same proxy, the same roots, the same name lookup. What a repository holds is
asked through the same client as a pull asks it.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from mscli.catalog.model import Variant
from mscli.paths import hub_token_file
from mscli.weights.connection import connection, request_target
from mscli.weights.fault import Headers, PassingFault, Timeouts, answer_fault, host_in, without_password
from mscli.weights.hub import Hub, Location
from mscli.weights.listing import RemoteFile, needed
from mscli.weights.partial import Gap
from mscli.weights.ranges import HttpRanges

DNS, TLS, PROXY, SILENT, REFUSED, STRANGE = "dns", "tls", "proxy", "silent", "refused", "strange"
_MOST_BYTES = 1 << 16


class Unreached(PassingFault):
    """No usable answer. `kind`: dns (the name is not known), tls (the certificate is not trusted), proxy (it refuses),
    silent (no answer in time), refused (nobody listens, or no way there), strange (an answer, but not a hub's)."""

    def __init__(self, kind: str, seen: str) -> None:
        super().__init__("network_proxy", seen)
        self.kind = kind


@dataclass(frozen=True)
class Answer:
    """One HTTP answer; of its body at most 64 KiB."""

    status: int
    headers: Headers
    body: bytes


@dataclass(frozen=True)
class Token:
    """The token that a pull sends. `origin`: the variable or the file that it comes from."""

    value: str = field(repr=False)
    origin: str


def token(env: Mapping[str, str] | None = None) -> Token | None:
    """The token in force, by the rules of the hub's libraries: HF_TOKEN, its older name, then the file of a login."""
    env = os.environ if env is None else env
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if value := env.get(name, "").strip():
            return Token(value, name)
    path = hub_token_file(env)
    try:
        value = path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
    return Token(value, str(path)) if value else None


def ask(url: str, timeout_s: float, headers: Mapping[str, str] | None = None) -> Answer:
    """GET `url` once, through the proxy in force, without following redirects. Waits at most `timeout_s` for each of
    connection and answer (the name lookup has a deadline of the system's own). Raises Unreached."""
    parts = urlsplit(url)
    try:
        made = connection(parts, timeout_s)
        target, more = request_target(parts)
        try:
            made.request("GET", target, headers={**(headers or {}), **more, "Accept-Encoding": "identity"})
            answer = made.getresponse()
            return Answer(answer.status, answer.headers, answer.read(_MOST_BYTES))
        finally:
            made.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise unreached(host_in(url), error) from error


def unreached(host: str, error: Exception) -> Unreached:
    """What a failed connection to `host` means, in words that hold no secret."""
    if isinstance(error, socket.gaierror):
        return Unreached(DNS, f"the name of {host}, or of the proxy before it, is not known ({error.strerror})")
    if isinstance(error, ssl.SSLCertVerificationError):
        return Unreached(TLS, f"the certificate that {host} shows is not trusted ({error.verify_message})")
    if isinstance(error, ssl.SSLError):
        return Unreached(TLS, f"no encrypted connection to {host} ({error.reason or 'TLS failed'})")
    if isinstance(error, TimeoutError):
        return Unreached(SILENT, f"{host} does not answer in time")
    if "Tunnel connection failed" in str(error):
        said = str(error).partition(":")[2].strip()
        return Unreached(PROXY, f"the proxy does not let a connection to {host} through ({said})")
    if isinstance(error, OSError):
        return Unreached(REFUSED, f"no connection to {host} ({error.strerror or type(error).__name__})")
    return Unreached(STRANGE, f"{host} answers, but not as a hub does ({type(error).__name__})")


def hub_answers(endpoint: str, timeout_s: float) -> None:
    """Asks the hub's API for one model. Raises Unreached, or PassingFault for 429 and 5xx."""
    host = host_in(endpoint)
    if urlsplit(endpoint).scheme not in ("http", "https") or not host:
        raise Unreached(
            STRANGE, f"HF_ENDPOINT is {without_password(endpoint)!r}, which is no address: it begins with https://"
        )
    answer = ask(f"{endpoint}/api/models?limit=1", timeout_s)
    _judge(answer, endpoint)
    moved = answer.status in (301, 302, 303, 307, 308) and host_in(answer.headers.get("Location", ""))
    if moved and moved != host:
        raise Unreached(STRANGE, f"{host} sends everybody to {moved}: a log-in page of the network in between?")
    if answer.status == 200 and answer.body.lstrip()[:1] not in (b"[", b"{"):
        raise Unreached(STRANGE, f"{host} answers with a page where a hub answers with data: a log-in page in between?")


def token_known(endpoint: str, sent: Token, timeout_s: float) -> bool:
    """Whether the hub knows the token. Raises Unreached, or PassingFault when it does not say."""
    answer = ask(f"{endpoint}/api/whoami-v2", timeout_s, {"Authorization": f"Bearer {sent.value}"})
    _judge(answer, endpoint)
    if answer.status not in (200, 401):
        raise Unreached(STRANGE, f"{host_in(endpoint)} does not say (HTTP {answer.status})")
    return answer.status == 200


def _judge(answer: Answer, endpoint: str) -> None:
    host = host_in(endpoint)
    if answer.status == 407:
        raise Unreached(PROXY, "the proxy wants a login (HTTP 407)")
    if fault := answer_fault(answer.status, answer.headers, endpoint):
        raise fault
    if answer.status == 403 and answer.body.lstrip()[:1] == b"<":
        raise Unreached(PROXY, f"{host} is refused with a page (HTTP 403): a filter in between?")


@dataclass(frozen=True)
class Sample:
    """The file that is asked for as an example of a repository's weights, and where its bytes lie."""

    file: RemoteFile
    location: Location


def sample(hub: Hub, variant: Variant) -> Sample:
    """Asks for the variant's files and where the smallest of its large ones lies. Raises as Hub.files and Hub.locate,
    and MscliError when a file that the variant names is not among them."""
    source = variant.source
    commit, files = hub.files(source.repository, source.revision)
    wanted = needed(variant, files)
    large = [file for file in wanted if file.sha256] or list(wanted)
    file = min(large, key=lambda file: file.size_bytes)
    return Sample(file, hub.locate(source.repository, commit, file))


def first_byte(found: Sample, timeouts: Timeouts) -> None:
    """Fetches one byte from where the file lies. Raises PassingFault."""
    reader = HttpRanges(timeouts)
    gap = Gap(0, 0, min(1, found.file.size_bytes))
    for _ in reader.read(found.location, gap, found.file.size_bytes) if gap.end else ():
        return


def host_of(found: Sample) -> str:
    """The host that hands out the file's bytes."""
    return host_in(found.location.url)
