"""Whether a hub answers this process, step by step as a pull needs it: its API, the token, the bytes of one file.

Requests go the way of a pull's bytes: the same proxy, the same roots, the same name lookup. What a repository holds is
asked through the same client as a pull asks it.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from mscli.catalog.model import Variant
from mscli.frozen import frozen
from mscli.http import MOVED, Answer, HttpFault, Limits, host_in, request
from mscli.weights.fault import PassingFault, Timeouts, answer_fault, without_password
from mscli.weights.hub import Hub, Location, Token
from mscli.weights.listing import RemoteFile, needed
from mscli.weights.partial import Gap
from mscli.weights.ranges import HttpRanges

DNS, TLS, PROXY, SILENT, STRANGE = "dns", "tls", "proxy", "silent", "strange"
_MOST_BYTES = 1 << 20


class Unreached(PassingFault):
    """No usable answer. `kind`: as of HttpFault; strange is also an answer that is not a hub's."""

    def __init__(self, kind: str, seen: str) -> None:
        super().__init__("network_proxy", seen)
        self.kind = kind


def ask(url: str, timeout_s: float, headers: Mapping[str, str] | None = None) -> Answer:
    """GET `url` once, through the proxy in force, without following redirects. Waits at most `timeout_s` for each of
    connection and answer (the name lookup has a deadline of the system's own). Raises Unreached."""
    try:
        return request(url, headers=headers, limits=Limits(timeout_s, timeout_s, 2 * timeout_s, _MOST_BYTES, 0))
    except HttpFault as fault:
        raise Unreached(fault.kind, fault.seen) from fault


def hub_answers(endpoint: str, timeout_s: float) -> None:
    """Asks the hub's API for one model. Raises Unreached, or PassingFault for 429 and 5xx."""
    host = host_in(endpoint)
    if urlsplit(endpoint).scheme not in ("http", "https") or not host:
        raise Unreached(
            STRANGE, f"HF_ENDPOINT is {without_password(endpoint)!r}, not an address: it must begin with https://"
        )
    answer = ask(f"{endpoint}/api/models?limit=1", timeout_s)
    _judge(answer, endpoint)
    moved = answer.status in MOVED and host_in(answer.headers.get("Location", ""))
    if moved and moved != host:
        raise Unreached(STRANGE, f"{host} redirects to {moved}: a login page (captive portal)?")
    if answer.status == 200 and answer.body.lstrip()[:1] not in (b"[", b"{"):
        raise Unreached(STRANGE, f"{host} answers with a page instead of data: a login page (captive portal)?")


def token_known(endpoint: str, sent: Token, timeout_s: float) -> bool:
    """Whether the hub knows the token. Raises Unreached, or PassingFault when it does not say."""
    answer = ask(f"{endpoint}/api/whoami-v2", timeout_s, {"Authorization": f"Bearer {sent.value}"})
    _judge(answer, endpoint)
    if answer.status not in (200, 401):
        raise Unreached(STRANGE, f"{host_in(endpoint)} answers with HTTP {answer.status}")
    return answer.status == 200


def _judge(answer: Answer, endpoint: str) -> None:
    host = host_in(endpoint)
    if answer.status == 407:
        raise Unreached(PROXY, "the proxy requires a login (HTTP 407)")
    if fault := answer_fault(answer.status, answer.headers, endpoint):
        raise fault
    if answer.status == 403 and answer.body.lstrip()[:1] == b"<":
        raise Unreached(PROXY, f"a page refuses {host} (HTTP 403): a network filter?")


@frozen
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
