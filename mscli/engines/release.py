"""A release of an engine on GitHub: its files, where they lie and their checksums, which only the REST API states."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from mscli.engines.archive import Publisher, read
from mscli.errors import Code, MscliError

# Address and digest by name.
Assets = Mapping[str, tuple[str, str]]


def assets_of(url: str, publisher: Publisher) -> Assets:
    """The files of the release at `url`, as the API says: {"assets": [{name, digest, address}]}.

    Raises DOWNLOAD_FAILED."""
    release = read(url, publisher)
    try:
        return {
            asset["name"]: (asset["browser_download_url"], asset["digest"] or "")
            for asset in json.loads(release)["assets"]
        }
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        raise _unusable(f"{url} does not respond like GitHub", "A proxy's page?", "network_proxy") from fault


def part(assets: Assets, pattern: str, url: str, publisher: Publisher) -> tuple[str, str]:
    """Address and sha256 of the file whose name is like `pattern`. Raises DOWNLOAD_FAILED where there is none."""
    found = max((name for name in assets if re.fullmatch(pattern, name)), default=None)
    if found is None:
        name = pattern.replace(r"\d+", "*").replace("\\", "")
        raise _unusable(f"the release at {url} has no {name}", f"Use another build: {publisher.page}")
    address, digest = assets[found]
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise _unusable(f"{url} lists no sha256 for {found}", f"Use a newer build: {publisher.page}")
    return address, digest.removeprefix("sha256:")


def _unusable(seen: str, hint: str, cause: str = "model_not_found") -> MscliError:
    return MscliError(Code.DOWNLOAD_FAILED, seen, hint, {"cause": cause})
