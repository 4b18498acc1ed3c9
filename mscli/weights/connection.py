"""A connection to an HTTP or HTTPS host, through the proxy that the environment names (HTTPS_PROXY, NO_PROXY ...)."""

from __future__ import annotations

import base64
import http.client
import ssl
from functools import lru_cache
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from mscli.weights.fault import PassingFault


def connection(url: SplitResult, timeout_s: float) -> http.client.HTTPConnection:
    """An unopened connection towards `url`; the first request opens it. Raises PassingFault for a SOCKS proxy."""
    proxy = _proxy(url)
    first = proxy or url
    if url.scheme == "http":
        return http.client.HTTPConnection(first.hostname or "", first.port, timeout=timeout_s)
    made = http.client.HTTPSConnection(first.hostname or "", first.port, timeout=timeout_s, context=_tls())
    if proxy is not None:
        made.set_tunnel(url.hostname or "", url.port, headers=_login(proxy))
    return made


def request_target(url: SplitResult) -> tuple[str, dict[str, str]]:
    """What stands in the request line, and headers for the proxy: a plain HTTP proxy is asked for the whole address."""
    proxy = _proxy(url) if url.scheme == "http" else None
    if proxy is not None:
        return url.geturl(), _login(proxy)
    return url._replace(scheme="", netloc="", fragment="").geturl() or "/", {}


def _proxy(url: SplitResult) -> SplitResult | None:
    proxies = getproxies()
    address = proxies.get(url.scheme) or proxies.get("all")
    if not address or proxy_bypass(url.netloc):
        return None
    proxy = urlsplit(address if "://" in address else f"http://{address}")
    if proxy.scheme not in ("http", "https"):
        raise PassingFault(
            "network_proxy", f"the proxy speaks {proxy.scheme}, which mscli does not: give an HTTP proxy"
        )
    return proxy if proxy.port else proxy._replace(netloc=f"{proxy.netloc}:{443 if proxy.scheme == 'https' else 80}")


def _login(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair).decode()}"}


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    # As the Hugging Face libraries do: certifi's roots, unless SSL_CERT_FILE or SSL_CERT_DIR says otherwise.
    import httpx

    return httpx.create_ssl_context()
