"""How a plan is said to Ollama: the environment of a server of the instance's own, and the parameters of its model.

Names, types and meanings are those of Ollama 0.33's source (envconfig/config.go, api/types.go).
"""

from __future__ import annotations

import re
from pathlib import Path

from mscli.catalog.profile import OptionValue, Profile
from mscli.catalog.sampling import Sampling
from mscli.errors import Code, MscliError
from mscli.paths import places
from mscli.planning.plan import Plan

Parameter = str | int | float | bool | list[str]

FOREVER = -1
"""Keep the model until it is unloaded: an instance is up until it is taken down."""
# The server gives up a load without progress after this; its default of 5 minutes is short for 24 GB from a slow disk.
LOAD_TIMEOUT = "30m"
# Settings of the user's shell that would change what was planned; empty is the server's default.
_NOT_INHERITED = ("OLLAMA_GPU_OVERHEAD", "OLLAMA_SCHED_SPREAD", "OLLAMA_LLM_LIBRARY")

# What the planner settles that is a parameter of the model, not of the server.
_PLANNED = ("num_batch", "num_gpu")
# The parameters of a model, and what Ollama takes for each. It does not check them when the model is made: one of the
# wrong type fails the load, one that it does not know is passed over.
_NUMBERS = (
    *("temperature", "top_p", "min_p", "typical_p"),
    *("repeat_penalty", "presence_penalty", "frequency_penalty"),
)
_WHOLE_NUMBERS = (
    *("num_keep", "seed", "num_predict", "top_k", "repeat_last_n"),
    *("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "draft_num_predict"),
)
_SWITCHES = ("use_mmap",)
_TEXTS = ("stop",)
_DURATION = re.compile(r"-?(?:\d+(?:\.\d+)?(?:h|ms|m|s|us|ns))+|0")


def common_environment(address: tuple[str, int], models: Path) -> dict[str, str]:
    """What every server that mscli starts is given: where it listens, its models, and no calls home."""
    host, port = address
    return {
        "OLLAMA_HOST": f"{f'[{host}]' if ':' in host else host}:{port}",
        "OLLAMA_MODELS": str(models),
        # The server makes a key in its home, and does not start without one.
        "HOME": str(places().ollama),
        # A server that starts deletes unfinished downloads: what a pull has fetched must outlive a restart.
        "OLLAMA_NOPRUNE": "1",
        "OLLAMA_NO_CLOUD": "1",
    }


def environment(plan: Plan, profile: Profile, address: tuple[str, int], models: Path) -> dict[str, str]:
    """The environment of the server of one instance, with the profile's own settings over it."""
    env = {
        **dict.fromkeys(_NOT_INHERITED, ""),
        **common_environment(address, models),
        "OLLAMA_CONTEXT_LENGTH": str(plan.context),
        "OLLAMA_NUM_PARALLEL": str(plan.users),
        "OLLAMA_KV_CACHE_TYPE": plan.kv_type,
        "OLLAMA_KEEP_ALIVE": str(profile.options.get("keep_alive", FOREVER)),
        "OLLAMA_MAX_LOADED_MODELS": "1",
        "OLLAMA_LOAD_TIMEOUT": LOAD_TIMEOUT,
        # An index that exists nowhere hides all GPUs.
        "CUDA_VISIBLE_DEVICES": ",".join(plan.devices) or "-1",
    }
    if plan.kv_type != "f16":
        # A quantised KV cache needs it; otherwise Ollama knows by itself where it works.
        env["OLLAMA_FLASH_ATTENTION"] = "1"
    return {**env, **profile.env}


def parameters(plan: Plan, profile: Profile, sampling: Sampling) -> dict[str, Parameter]:
    """The parameters of the derived model: the plan's, the makers' sampling, and the profile's options over both.

    A reply ends at the latest after `num_ctx` tokens, whatever the profile says: without a limit a text model goes on
    to ten times that and forgets the beginning.
    """
    options = {name: value for name, value in profile.options.items() if name != "keep_alive"}
    context = int(options.get("num_ctx", plan.context))
    longest = int(options.get("num_predict", sampling.max_tokens or context))
    wanted: dict[str, Parameter | None] = {
        "num_ctx": plan.context,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        **{name: plan.settings.get(name) for name in _PLANNED},
        **{name: [str(value)] if name in _TEXTS else value for name, value in options.items()},
        "num_predict": min(longest, context) if longest > 0 else context,
    }
    return {name: value for name, value in wanted.items() if value is not None}


def for_clients(sampling: Sampling) -> str | None:
    """In words, what OpenAI clients must send: without them in the request the endpoint takes 1.0 and 1.0, whatever the
    model's are. None where these are the model's."""
    ours = {"temperature": sampling.temperature, "top_p": sampling.top_p}
    wanted = [f"{name}={value}" for name, value in ours.items() if value not in (None, 1.0)]
    if not wanted:
        return None
    sent = " and ".join(wanted)
    return f"clients must send {sent} themselves: otherwise Ollama's OpenAI endpoint uses 1.0, not the model's value"


def check_options(profile: Profile) -> None:
    """Raises PROFILE_INVALID for an option that Ollama does not know, or whose value it would not take."""
    for name, value in profile.options.items():
        if wrong := _wrong(name, value):
            raise MscliError(
                Code.PROFILE_INVALID,
                f"{profile.path}: options.{name}: {wrong}",
                "Ollama would ignore it, or fail to load the model. Correct it, or remove it.",
                {"cause": "cli_flags", "option": name},
            )


def _wrong(name: str, value: OptionValue) -> str | None:
    """In words, what is wrong with an option; None if nothing is."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if name == "keep_alive":
        takes = number or (isinstance(value, str) and _DURATION.fullmatch(value))
        return None if takes else f'{value!r} is not a duration: use a number of seconds, or text such as "10m"'
    if name in _NUMBERS:
        return None if number else f"{value!r} is not a number"
    if name in _WHOLE_NUMBERS:
        return None if number and value == int(value) else f"{value!r} is not a whole number"
    if name in _SWITCHES:
        return None if isinstance(value, bool) else f"{value!r} is neither true nor false"
    if name in _TEXTS:
        return None if isinstance(value, str) else f"{value!r} is not text"
    from difflib import get_close_matches

    near = get_close_matches(name, ("keep_alive", *_NUMBERS, *_WHOLE_NUMBERS, *_SWITCHES, *_TEXTS), n=1)
    return "Ollama has no such parameter" + (f"; did you mean {near[0]}?" if near else "")
