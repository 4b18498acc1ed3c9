"""Flags of a profile that the engine refuses by name, said as this version wants them: by a table of what has changed
between versions, and by the engine's own words. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches

from mscli.catalog.files import DECIDED
from mscli.catalog.profile import OptionValue
from mscli.engines.llamacpp.embedded import SWITCHES, VALUES
from mscli.engines.vllm.flags import RENAMED
from mscli.engines.vllm.flags import renamed as vllm_renamed

Options = Mapping[str, OptionValue]
# What becomes of a flag's value: the flag and value to say instead; None: it is left out.
Respell = Callable[[OptionValue], "tuple[str, OptionValue] | None"]

_UNKNOWN = re.compile(
    r"unrecognized arguments: (?P<many>.+)|error: ambiguous option: (?P<vague>--\S+)"
    r"|error: invalid argument: (?P<llama>--\S+)|[Nn]o such option:? '?(?P<click>--[\w-]+)"
    r"|unexpected argument '(?P<clap>--[\w-]+)"
)
_WRONG_VALUE = re.compile(
    r"error: argument (?:-\w+/)?(?P<flag>--[\w-]+)\S*: (?P<why>.+)|error while handling argument \"(?P<llama>--\S+)\""
    r"|expected value for argument:? (?P<missing>--\S+)"
)
_SUGGESTED = re.compile(r"(?:[Dd]id you mean|similar argument exists|Possible options?):? *['\"`(]*(--[\w-]+)")
# mscli's own guess, from the flags of an engine's parser: only taken where it is close.
_NEAREST = re.compile(r"closest flag that this vLLM accepts is (--[\w-]+)")
_CHOICES = re.compile(r"choose from (.+?)\)")
_COUNTS = re.compile(r"\w+=\d+(?:,\w+=\d+)*")
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_CLOSE = 0.8


def _gone(_: OptionValue) -> None:
    return None


def _called(flag: str) -> Respell:
    return lambda value: (flag, value)


def _now(flag: str, value: OptionValue) -> Respell:
    return lambda _: (flag, value)


# Gone from one version to the next; looked up in the parsers of 0.10.2, 0.22.1 and 0.32.0. What they did is the
# default now, or no longer exists.
_VLLM: Mapping[str, Respell] = {
    **{each.old: _called(each.new) for each in RENAMED},
    **dict.fromkeys(
        (
            "enable-reasoning", "disable-log-requests", "swap-space", "num-scheduler-steps", "use-v2-block-manager",
            "max-seq-len-to-capture", "disable-frontend-multiprocessing", "device", "tokenizer-pool-size",
            "tokenizer-pool-type", "preemption-mode", "num-lookahead-slots", "scheduler-delay-factor",
            "multi-step-stream-outputs", "disable-async-output-proc", "full-cuda-graph", "calculate-kv-scales",
        ),
        _gone,
    ),
    "worker-use-ray": _now("distributed-executor-backend", "ray"),
    "engine-use-ray": _gone,
    "disable-mm-preprocessor-cache": _now("mm-processor-cache-gb", 0),
    "guided-decoding-backend": lambda value: ("structured-outputs-config", json.dumps({"backend": value})),
    "task": lambda value: None if value in ("auto", "generate") else ("runner", value),
}  # fmt: skip
_SHORT = {
    "fa": "flash-attn", "t": "threads", "tb": "threads-batch", "b": "batch-size", "ub": "ubatch-size",
    "np": "parallel", "c": "ctx-size", "ngl": "gpu-layers", "ctk": "cache-type-k", "ctv": "cache-type-v",
    "sm": "split-mode", "mg": "main-gpu", "ts": "tensor-split", "n": "predict", "s": "seed", "cb": "cont-batching",
    "lv": "log-verbosity", "cram": "cache-ram", "kvu": "kv-unified", "dev": "device",
}  # fmt: skip
_LLAMA_FLAGS = tuple(
    word.removeprefix("--") for group in (*VALUES, *SWITCHES) for word in group if word.startswith("--")
)
# What the plan decides, with two more names that llama-server has for it and the check of a profile does not know.
_DECIDED = {*DECIDED, "parallel", "gpu-layers"}


def renamed(engine: str, version: str | None, options: Iterable[str]) -> Mapping[str, str]:
    """Of a profile's `options`, those that this engine refuses as they are spelt, each with the name it takes.

    `version` None: not known, then only what no version takes.
    """
    if engine == "llama.cpp":  # the wheel's server takes hyphens alone, llama-server both
        return {option: option.replace("_", "-") for option in options if "_" in option}
    return vllm_renamed(version, options) if engine in ("vllm", "vllm-docker") else {}


def respelt(engine: str, log: str, options: Options) -> Options | None:
    """What to change of a profile's options so that the engine takes them: a flag that is False is left out.

    None where the log refuses no flag of the profile, or one of which nothing is known.
    """
    changes: dict[str, OptionValue] = {}
    for word in _unknown(log):
        found = _unknown_flag(engine, word, options, log)
        if found is None:
            return None
        changes |= found
    for flag, why in _wrong_values(log):
        found = _wrong_value(engine, flag, why, options)
        if found is None:
            return None
        changes |= found
    return changes or None


def _unknown(log: str) -> list[str]:
    """The words of the command line that the engine does not know."""
    found: dict[str, None] = {}
    for match in _UNKNOWN.finditer(log):
        words = next(group for group in match.groups() if group).split()
        flags = [word.strip("'\",.").partition("=")[0] for word in words if word.startswith("--")]
        found |= dict.fromkeys(flags or words[:1])
    return list(found)


def _wrong_values(log: str) -> list[tuple[str, str]]:
    found = {
        match["flag"] or match["llama"] or match["missing"]: match["why"] or "" for match in _WRONG_VALUE.finditer(log)
    }
    return list(found.items())


def _key(flag: str, options: Options) -> str | None:
    """The profile's key for a flag, however it is spelt."""
    wanted = flag.lstrip("-").replace("_", "-")
    return next((key for key in options if key.replace("_", "-") == wanted and options[key] is not False), None)


def _unknown_flag(engine: str, word: str, options: Options, log: str) -> Options | None:
    if not word.startswith("--"):
        return _switch(word, options)
    key = _key(word, options)
    if key is None:
        return None
    name = key.replace("_", "-")
    if engine == "vllm" and name in _VLLM:
        return _instead(key, _VLLM[name](options[key]))
    if suggested := _SUGGESTED.search(log) or _near(name, log):
        return _instead(key, (suggested[1].removeprefix("--"), options[key]))
    return _llama(key, options[key]) if engine == "llama.cpp" else None


def _near(name: str, log: str) -> re.Match[str] | None:
    nearest = _NEAREST.search(log)
    return nearest if nearest and get_close_matches(f"--{name}", [nearest[1]], cutoff=_CLOSE) else None


def _llama(key: str, value: OptionValue) -> Options | None:
    """llama-server has short names with one dash, and the embedded one takes no underscores."""
    name = _SHORT.get(key, key.replace("_", "-"))
    if name in _DECIDED:
        return {key: False}
    if name == key:
        close = get_close_matches(name, _LLAMA_FLAGS, n=1, cutoff=_CLOSE)
        if not close:
            return None
        name = close[0]
    return _instead(key, (name, _flash(value) if name == "flash-attn" else value))


def _instead(key: str, said: tuple[str, OptionValue] | None) -> Options:
    return {key: False} if said is None else {key: False, said[0]: said[1]}


def _switch(word: str, options: Options) -> Options | None:
    """A value where the flag takes none: "true" in quotes."""
    if word.lower() not in (*_TRUE, *_FALSE):
        return None
    found = {key: word.lower() in _TRUE for key, value in options.items() if value is not True and str(value) == word}
    return found or None


def _wrong_value(engine: str, flag: str, why: str, options: Options) -> Options | None:
    key = _key(flag, options)
    if key is None:
        return None
    value = options[key]
    if key.replace("_", "-") in _DECIDED:
        return {key: False}
    if engine == "llama.cpp" and key == "flash-attn":
        return {key: _flash(value)} if _flash(value) != value else None
    if "cannot be converted" in why and _COUNTS.fullmatch(str(value)):
        pairs = (pair.split("=") for pair in str(value).split(","))
        return {key: json.dumps({name: int(count) for name, count in pairs})}
    told = _CHOICES.search(why)
    choices = [choice.strip(" '\"") for choice in told[1].split(",")] if told else []
    close = get_close_matches(str(value), choices, n=1, cutoff=_CLOSE)
    return {key: close[0]} if close else None


def _flash(value: OptionValue) -> OptionValue:
    """Until August 2025 --flash-attn stood alone."""
    word = str(value).lower()
    if word in (*_TRUE, "enabled"):
        return "on"
    return "off" if word in (*_FALSE, "disabled") else value
