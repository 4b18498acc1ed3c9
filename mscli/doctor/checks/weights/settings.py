"""Settings of the hub's libraries that do something else than they seem to, and the token as it is kept."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from mscli.doctor.checks.check import Seen, ok, warn
from mscli.doctor.checks.context import CheckContext
from mscli.paths import hub_cache, hub_token_file
from mscli.weights.hub_check import token

_SWITCHES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_XET", "HF_XET_HIGH_PERFORMANCE")
_WORDS = {"1", "ON", "YES", "TRUE", "0", "OFF", "NO", "FALSE", ""}
_LEAST_RAM = 64 * 2**30
_LOOKS_RIGHT = re.compile(r"hf_[A-Za-z0-9]{20,}|hf_oauth_\S+|api_\S+")


def settings(ctx: CheckContext) -> Iterator[Seen]:
    """Each setting that misleads, or that all is as it seems."""
    found = [*_switches(ctx.env), *_folders(ctx.env), *_speed(ctx)]
    yield from found
    if not found:
        set_here = sorted(name for name in ctx.env if name.startswith(("HF_", "TRANSFORMERS_")) and "TOKEN" not in name)
        yield ok(f"the hub's settings are as they seem: {', '.join(set_here) or 'none is set'}")


def _switches(env: Mapping[str, str]) -> Iterator[Seen]:
    for name in _SWITCHES:
        if env.get(name, "").upper() not in _WORDS:
            remedy = f"Write {name}=1, or unset it."
            yield warn(None, f"{name}={env[name]!r} is neither yes nor no: it counts as no", remedy)


def _folders(env: Mapping[str, str]) -> Iterator[Seen]:
    place = hub_cache(env)
    for name in ("TRANSFORMERS_CACHE", "HUGGINGFACE_HUB_CACHE", "PYTORCH_TRANSFORMERS_CACHE"):
        other = env.get(name)
        if other and Path(other).expanduser() != place:
            yield warn(
                None,
                f"{name} names {other}, but weights go to {place}: programs that heed the one fetch them twice",
                f"Unset {name} and set HF_HOME alone.",
            )
    if not place.is_absolute():
        remedy = "Write HF_HOME or HF_HUB_CACHE as a whole path, from / on."
        yield warn(
            None, f"the cache is {place}, which is another folder for each place that a program starts in", remedy
        )


def _speed(ctx: CheckContext) -> Iterator[Seen]:
    env = ctx.env
    if env.get("HF_HUB_ENABLE_HF_TRANSFER", "").upper() in {"1", "ON", "YES", "TRUE"} and not find_spec("hf_transfer"):
        yield warn(
            "python_env",
            "HF_HUB_ENABLE_HF_TRANSFER is set and hf_transfer is not installed: older tools then refuse to fetch",
            "Unset it: Xet has taken its place.",
        )
    ram = ctx.inventory.host.ram_total_bytes
    if env.get("HF_XET_HIGH_PERFORMANCE", "").upper() in {"1", "ON", "YES", "TRUE"} and ram < _LEAST_RAM:
        yield warn(
            "host_ram",
            f"HF_XET_HIGH_PERFORMANCE buffers many gigabytes, and this machine has {ram / 2**30:.0f} GiB of RAM",
            "Unset it below 64 GiB.",
        )
    kept = env.get("HF_XET_CHUNK_CACHE_SIZE_BYTES", "")
    if kept and not kept.isdigit():
        remedy = "Write plain bytes: 10000000000."
        yield warn(None, f"HF_XET_CHUNK_CACHE_SIZE_BYTES={kept!r} is no number of bytes", remedy)


def token_kept(ctx: CheckContext) -> Iterator[Seen]:
    """The token as it lies here; whether the hub knows it is the network's to say. Its text is never shown."""
    path, sent = hub_token_file(ctx.env), token(ctx.env)
    if sent is None:
        yield from _none(path)
        return
    if not ctx.env.get("HF_ENDPOINT") and not _LOOKS_RIGHT.fullmatch(sent.value):
        remedy = "Copy it anew from https://huggingface.co/settings/tokens: it begins with hf_ and holds no blanks."
        yield warn("hf_gated", f"what is in {sent.origin} does not look like a token of the hub", remedy)
    elif sent.origin != str(path) and path.is_file():
        yield ok(f"a token is in {sent.origin}", f"the one in {path} is not used meanwhile")
    else:
        yield ok(f"a token is in {sent.origin}")
    if path.is_file() and path.stat().st_mode & 0o077:
        yield warn(
            None, f"others on this machine may read the token in {path}", "Close it.", command=f"chmod 600 {path}"
        )


def _none(path: Path) -> Iterator[Seen]:
    if not path.exists():
        yield ok("no token is kept")
        return
    remedy = "Log in anew: hf auth login."
    yield warn("hf_gated", f"there is a token file {path}, but no token can be read from it", remedy)
