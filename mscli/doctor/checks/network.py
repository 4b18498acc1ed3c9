"""Checks of the network, as the process that pulls sees it: the hub, the token, the repository wanted, its bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar
from urllib.parse import urlsplit

from mscli.catalog.model import Variant
from mscli.doctor.checks.check import Check, CheckContext, Finding, fail, ok, skipped, warn, within
from mscli.doctor.checks.chosen import needs_hub
from mscli.engines.engine import Offer
from mscli.engines.ollama.store import REGISTRY
from mscli.errors import MscliError
from mscli.frozen import frozen
from mscli.http import MOVED, Answer, HttpFault, Limits, host_in, request
from mscli.lifecycle.snapshot import located, offered
from mscli.weights.fault import PassingFault, Timeouts, answer_fault, proxy_hint, without_password
from mscli.weights.hub import Hub, Location, Token, hub, offline_by_environment, token
from mscli.weights.listing import RemoteFile, needed
from mscli.weights.partial import Gap
from mscli.weights.ranges import HttpRanges, xet_usable

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


T = TypeVar("T")
PATIENCE_S = 2.0
_ENGINE_S = 5.0  # for all hosts of an engine
OLLAMA_REGISTRY = f"https://{REGISTRY}"

_REMEDIES = {
    DNS: "Check the spelling (HF_ENDPOINT, HTTPS_PROXY) and DNS (/etc/resolv.conf).",
    TLS: "Behind a TLS-intercepting proxy, set SSL_CERT_FILE (older tools: REQUESTS_CA_BUNDLE) to its CA certificate.",
    PROXY: "Set the proxy's address and login in HTTPS_PROXY, ask for the host to be allowed, or add it to NO_PROXY.",
    SILENT: "A firewall blocks it, or a proxy is needed: set HTTPS_PROXY.",
    STRANGE: "Open the hub in a browser on this machine: the network may require a login.",
}


def _skip(ctx: CheckContext) -> Finding | None:
    """Why nothing of the hub is looked at; None when it is."""
    if ctx.chosen is not None and (kind := ctx.chosen.variant.source.kind) != "hub":
        return skipped(f"{ctx.chosen.profile.name} uses no weights from Hugging Face ({kind})")
    if offline_by_environment():
        return skipped("offline mode (HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE)")
    return None


def _wrong(ctx: CheckContext, fault: PassingFault) -> Finding:
    """A fault of the network: in the way of a profile that must be fetched first, else worth knowing."""
    remedy = _REMEDIES.get(fault.kind, proxy_hint()) if isinstance(fault, Unreached) else _remedy(fault)
    seen = fault.seen if needs_hub(ctx) else f"{fault.seen} (cached weights still work)"
    return (fail if needs_hub(ctx) else warn)(fault.cause, seen, remedy, _way())


def _remedy(fault: PassingFault) -> str:
    if fault.cause == "hf_rate_limit":
        wait = f" The hub asks to wait {fault.wait_s:g} s." if fault.wait_s is not None else ""
        return f"Wait, or log in for a higher limit (hf auth login, HF_TOKEN).{wait}"
    return proxy_hint()


def _way() -> str:
    """Through which settings the hub was asked, passwords left out."""
    return proxy_hint().partition(": ")[2].partition("; then ")[0]


def _asked(call: Callable[[], T], deadline: float) -> T:
    """The answer to `call`; one that does not come before `deadline` (monotonic) is a fault of the network."""
    try:
        return within(deadline - time.monotonic(), call)
    except TimeoutError as late:
        raise Unreached(SILENT, "no answer in time") from late


def _hub_fault(ctx: CheckContext) -> PassingFault | None:
    """Why the hub's API does not answer; None when it does. Asked once."""

    def look() -> PassingFault | None:
        endpoint = hub(Timeouts()).endpoint
        try:
            within(PATIENCE_S, lambda: hub_answers(endpoint, PATIENCE_S))
        except TimeoutError:
            return Unreached(SILENT, f"{host_in(endpoint)} does not answer within {PATIENCE_S:g} s")
        except PassingFault as fault:
            return fault
        return None

    return ctx.once("hub answers", look)


def _hub(ctx: CheckContext) -> Iterator[Finding]:
    if why := _skip(ctx):
        yield why
        return
    begun = time.monotonic()
    fault = _hub_fault(ctx)
    if fault is not None:
        yield _wrong(ctx, fault)
    else:
        yield ok(
            f"{without_password(hub(Timeouts()).endpoint)} answers within {time.monotonic() - begun:.1f} s", _way()
        )


def _token(ctx: CheckContext) -> Iterator[Finding]:
    if why := _skip(ctx):
        yield why
        return
    sent = token(ctx.env)
    if sent is None:
        yield ok("no token (not needed for ungated repositories)")
        return
    endpoint = hub(Timeouts()).endpoint
    try:
        known = _asked(lambda: token_known(endpoint, sent, PATIENCE_S), time.monotonic() + PATIENCE_S)
    except PassingFault as fault:
        yield skipped(f"token in {sent.origin} not checked: {fault.seen}")
        return
    yield ok(f"token in {sent.origin} is valid") if known else _unknown(ctx, sent)


def _unknown(ctx: CheckContext, sent: Token) -> Finding:
    severity = fail if ctx.chosen is None or needs_hub(ctx) else warn
    return severity(
        "hf_gated",
        f"token in {sent.origin} is invalid (mistyped, expired or revoked)",
        f"Create a new one at https://huggingface.co/settings/tokens, or remove {sent.origin} (it blocks open "
        "repositories too):",
        "GET /api/whoami-v2: HTTP 401",
        command="hf auth login" if sent.origin != "HF_TOKEN" else "unset HF_TOKEN",
    )


def _repository(ctx: CheckContext) -> Iterator[Finding]:
    """The repository wanted, and a byte of its weights from wherever they lie."""
    if ctx.chosen is None or _skip(ctx):
        return
    name = ctx.chosen.variant.source.repository
    deadline = time.monotonic() + PATIENCE_S
    try:
        found = _asked(lambda: _sample(ctx), deadline)
        timeouts = _timeouts(deadline)
        _asked(lambda: first_byte(found, timeouts), deadline)
    except MscliError as refusal:
        severity, code = fail if needs_hub(ctx) else warn, refusal.details.get("cause")
        yield severity(code if isinstance(code, str) else None, refusal.message, refusal.hint)
        return
    except PassingFault as fault:
        if fault.cause == "network_proxy" and _hub_fault(ctx) is not None:
            yield skipped(f"access to {name} not checked (no answer from the hub)")
        else:
            yield _wrong(ctx, fault)
        return
    yield ok(f"{name} can be downloaded from {host_of(found)}", f"one byte of {found.file.name}")
    yield from _xet(found, deadline)


def _sample(ctx: CheckContext) -> Sample:
    assert ctx.chosen is not None
    return sample(hub(Timeouts(connect_s=PATIENCE_S)), ctx.chosen.variant)


def _timeouts(deadline: float) -> Timeouts:
    left = max(deadline - time.monotonic(), 0.1)
    return Timeouts(connect_s=left, stall_s=left)


def _xet(found: Sample, deadline: float) -> Iterator[Finding]:
    """Where Xet storage is said to be: without a way there a pull loses time before it takes plain HTTP."""
    import json

    xet = found.location.xet
    if xet is None or not xet_usable():
        return
    try:
        told = _asked(lambda: ask(xet.refresh_url, PATIENCE_S, xet.headers), deadline)
        storage = str(json.loads(told.body).get("casUrl", "")) if told.status == 200 else ""
        if storage.startswith("http"):
            _asked(lambda: ask(storage, PATIENCE_S), deadline)
    except (PassingFault, ValueError, AttributeError) as fault:
        seen = fault.seen if isinstance(fault, PassingFault) else "invalid answer"
        yield warn(
            "network_proxy",
            f"cannot reach Xet storage: {seen}",
            "Ask for the host to be allowed, or use plain HTTP, which works:",
            command="export HF_HUB_DISABLE_XET=1",
        )


def _ollama(ctx: CheckContext) -> Iterator[Finding]:
    """Ollama's registry. The server pulls, not this process: its own proxy and roots may be other ones."""
    if ctx.chosen is None or ctx.chosen.variant.source.kind != "ollama":
        return
    whose = "the Ollama server downloads with its own environment"
    host = host_in(OLLAMA_REGISTRY)
    try:
        answer = _asked(lambda: ask(f"{OLLAMA_REGISTRY}/v2/", PATIENCE_S), time.monotonic() + PATIENCE_S)
    except PassingFault as fault:
        remedy = _REMEDIES.get(fault.kind, "") if isinstance(fault, Unreached) else ""
        systemd = "For the service: sudo systemctl edit ollama, [Service] Environment=HTTPS_PROXY=..."
        yield warn("network_proxy", f"{fault.seen}; checked from mscli, {whose}", f"{remedy} {systemd}".strip())
        return
    yield ok(f"{host} answers (HTTP {answer.status}); checked from mscli, {whose}")


def _engine(ctx: CheckContext) -> Iterator[Finding]:
    """Every host that the engine of the profile asked about is fetched from, where `mscli up` would install it."""
    found = _to_install(ctx)
    if found is None:
        return
    from mscli.engines.packages import INDEX, remedy

    reached, deadline = list[str](), time.monotonic() + _ENGINE_S
    for address in found.addresses:
        try:
            _asked(lambda address=address: _knock(address), deadline)  # type: ignore[misc]
        except PassingFault as fault:
            variable = f"MSCLI_{found.engine.replace('.', '').upper()}_RELEASES"
            own = f"Behind a proxy set HTTPS_PROXY. For a mirror set {variable}."
            yield warn(
                "network_proxy",
                f"{fault.seen}; {found.what} is installed from there",
                remedy(host_in(address)) if found.source == INDEX else own,
                _way(),
            )
        else:
            reached.append(host_in(address))
    if reached:
        yield ok(f"{found.what} can be fetched ({', '.join(dict.fromkeys(reached))})")


def _to_install(ctx: CheckContext) -> Offer | None:
    """What `mscli up` would install for the profile asked about; None where its engine is here, or cannot be had."""
    if ctx.chosen is None:
        return None
    name, device = ctx.chosen.profile.engine, ctx.chosen.profile.device
    if not isinstance(missing := located(name, device, ctx.inventory), MscliError):
        return None
    try:
        return offered(name, missing, device, ctx.inventory)
    except MscliError:
        return None


def _knock(address: str) -> None:
    """Asks for an address; any answer of the host is one. Raises Unreached."""
    try:
        request(address, method="HEAD", limits=Limits(PATIENCE_S, PATIENCE_S, PATIENCE_S, _MOST_BYTES, 0))
    except HttpFault as fault:
        raise Unreached(fault.kind, fault.seen) from fault


CHECKS = (
    Check("network.hub", _hub),
    Check("network.token", _token),
    Check("network.repository", _repository, deadline_s=6.0),  # loading the hub's client counts too, on a slow disk
    Check("network.ollama", _ollama),
    Check("network.engine", _engine, deadline_s=_ENGINE_S + 1.0),
)
