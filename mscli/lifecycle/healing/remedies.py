"""From a failed start to the changes of its plan that may help, the gentlest first.

Only the profile is changed, within what it allows: the context down to its floor, KV types of its list, at least one
image and one user. What the user typed (--ctx, --kv, --images, --users, --port) stays. Pure, but for a look at what is
free now.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

from mscli.catalog.profile import OptionValue, Profile
from mscli.frozen import frozen
from mscli.lifecycle.decision import Decision
from mscli.lifecycle.healing.flag_renames import respelt
from mscli.planning.adjustment import NOTHING, UTILISATION, Adjustment
from mscli.planning.devices import cuda_total
from mscli.planning.plan import Overrides, Plan
from mscli.planning.request import KV_BY_ENGINE
from mscli.planning.search import ROUNDING, TIGHT_SHARE

_FEWEST_SEQUENCES = 8
# A GPU that has lost this much since the plan was made is planned anew.
_LOST_BYTES = 256 * 2**20

_FITS = (
    re.compile(r"estimated maximum model length is (\d+)"),
    re.compile(r"tokens that can be stored in KV cache \((\d+)\)"),
)
_LIMIT = re.compile(r"is greater than the derived max_model_len \(\D*(\d+)")
_FREE = re.compile(r"Free memory on device \S* ?\(([\d.]+)/([\d.]+) GiB\) on startup is less than desired GPU")
_ROOM_ON_NODE = re.compile(
    r"\(([\d.]+)/[\d.]+ GiB\) on kv cache allocation is less than requested memory for kv \(([\d.]+)"
)
_IMAGE_TOKENS = re.compile(r"max_tokens_per_mm_item \((\d+)\) is larger than max_num_batched_tokens")
_BATCH = re.compile(r"max_num_batched_tokens \(\d+\) is smaller than max_model_len \((\d+)\)")
_FLASH = re.compile(r"V cache quantization requires flash_attn|quantized V cache.*requires? flash_attn")
_BLOCK = re.compile(r"cache type \w+ with block size \d+ does not divide")
_BF16 = re.compile(r"Bfloat16 is only supported on GPUs with compute capability")
_OUT_OF_MEMORY = re.compile(r"CUDA (?:error: )?out of memory|cudaMalloc failed: out of memory")
_GRAPHS = re.compile(r"[Cc]apturing (?:the model for )?(?:CUDA|cuda)[ -]?graph|capture_model")
_WEIGHTS_THERE = re.compile(
    r"(?:[Mm]odel loading|[Ll]oading(?: model)? weights) took|KV buffer size|kv cache|compute (?:pp |tg )?buffer"
)
_WEIGHTS_SHORT = re.compile(r"unable to allocate CPU\S* buffer")
_COMPILING = re.compile(
    r"torch[._/]_?(?:inductor|dynamo)|InductorError|BackendCompilerFailed|triton/\S+\.py|ninja|nvcc|C compiler"
    r"|Python\.h"
)
_PEERS = re.compile(r"custom_all_?reduce|peer access|P2P|vLLM is using nccl")


@frozen
class Failure:
    """A start that failed. `number`: of this try, from 1. `lost_bytes`: by how much less is free on its GPUs now than
    when it was planned. `overrides`, `port`: what the user typed. `adopted`: on a server that is not ours, which
    decides on KV type and users itself."""

    cause: str
    log: str
    decision: Decision
    overrides: Overrides
    port: int | None
    number: int
    lost_bytes: int = 0
    adopted: bool = False

    @property
    def plan(self) -> Plan:
        """What was started."""
        return self.decision.plan

    @property
    def profile(self) -> Profile:
        """The profile as it was planned, with all that was changed before."""
        return self.decision.profile

    @cached_property
    def engine(self) -> str:
        """Whose flags and whose log it is."""
        return self.plan.engine.removesuffix("-docker")


@frozen
class Change:
    """What to do before the next try. `adjustment` NOTHING: `what` says why the same may go well now."""

    what: str
    adjustment: Adjustment = NOTHING


Remedy = Callable[[Failure], Iterator[Change]]


def remedies(failure: Failure) -> Iterator[Change]:
    """The changes that may help and change anything at all, the gentlest first. Empty: it takes a person."""
    for remedy in (_by_the_words, _CAUSES.get(failure.cause, _nothing)):
        for change in remedy(failure):
            if _changes(change.adjustment, failure.profile):
                yield change


def _changes(adjustment: Adjustment, profile: Profile) -> bool:
    only_the_plan = adjustment == NOTHING or adjustment.utilisation is not None
    return only_the_plan or adjustment.applied(profile) != profile


def wrong_kv_types(profile: Profile, overrides: Overrides) -> Change | None:
    """Where the profile lists KV types that its engine does not have: those that it has. None: it lists none such."""
    known = KV_BY_ENGINE[profile.engine]
    right = tuple(kind for kind in profile.kv_types if kind in known)
    if overrides.kv_type or right == profile.kv_types:
        return None
    return _change(Adjustment(kv_types=right or known))


def _change(adjustment: Adjustment) -> Change:
    return Change(", ".join(adjustment.words), adjustment)


def _options(**options: OptionValue) -> Change:
    return _change(Adjustment(options={key.replace("_", "-"): value for key, value in options.items()}))


def _nothing(_: Failure) -> Iterator[Change]:
    yield from ()


def _by_the_words(failure: Failure) -> Iterator[Change]:
    """What the engine itself says it needs, whatever the cause is called."""
    if limit := _LIMIT.search(failure.log):
        yield from _context(failure, int(limit[1]))
    if _FLASH.search(failure.log):
        yield from _without_flash(failure)
    if _BLOCK.search(failure.log):
        yield from _other_kv(failure, ("f16",))
    if wanted := _IMAGE_TOKENS.search(failure.log) or _BATCH.search(failure.log):
        yield _options(max_num_batched_tokens=int(wanted[1]))
    if failure.engine == "vllm" and _BF16.search(failure.log):
        yield _options(dtype="half")
    if found := _free_share(failure):
        yield _change(Adjustment(options={UTILISATION: found}))


def _free_share(failure: Failure) -> float | None:
    """The share of the GPU that was free at the start, less one percent for the next look."""
    told = _FREE.search(failure.log)
    share = math.floor((float(told[1]) / float(told[2]) - 0.01) * 1000) / 1000 if told else 0.0
    return share if share > 0 else None


def _flags(failure: Failure) -> Iterator[Change]:
    if options := respelt(failure.engine, failure.log, failure.profile.options):
        yield _change(Adjustment(options=options))


def _port(failure: Failure) -> Iterator[Change]:
    if failure.port is None:
        yield Change("another port")


def _kv_short(failure: Failure) -> Iterator[Change]:
    if _OUT_OF_MEMORY.search(failure.log) and _fitting(failure) is None and failure.engine == "vllm":
        yield from _compute_short(failure)
        return
    yield from _less_context(failure)
    yield from _smaller_kv(failure)
    yield from _more_utilisation(failure)
    yield from _fewer_users(failure)
    yield from _eager(failure)


def _compute_short(failure: Failure) -> Iterator[Change]:
    """The weights were there, what is computed beside them did not fit."""
    if _GRAPHS.search(failure.log):
        yield from _eager(failure)
    yield from _fewer_sequences(failure)
    yield from _fewer_images(failure)
    yield from _eager(failure)
    yield from _less_context(failure)


def _weights_short(failure: Failure) -> Iterator[Change]:
    yield from _planned_anew(failure)
    if _WEIGHTS_THERE.search(failure.log):
        yield from _compute_short(failure) if failure.engine == "vllm" else _kv_short(failure)


def _ram_short(failure: Failure) -> Iterator[Change]:
    if _WEIGHTS_SHORT.search(failure.log) and not _WEIGHTS_THERE.search(failure.log):
        return
    yield from _less_context(failure)
    yield from _smaller_kv(failure)
    yield from _fewer_users(failure)


def _planned_anew(failure: Failure) -> Iterator[Change]:
    if failure.lost_bytes >= _LOST_BYTES:
        yield Change("a new plan for what is free now")


def _compiler(failure: Failure) -> Iterator[Change]:
    """Kernels that are compiled at the start: without FlashInfer's sampler, then without compiling at all."""
    if failure.engine != "vllm":
        return
    if "flashinfer" in failure.log.lower() and "VLLM_USE_FLASHINFER_SAMPLER" not in failure.profile.env:
        yield _change(Adjustment(env={"VLLM_USE_FLASHINFER_SAMPLER": "0"}))
    if _COMPILING.search(failure.log):
        yield from _eager(failure)


def _fork(failure: Failure) -> Iterator[Change]:
    if failure.engine == "vllm":
        yield _change(Adjustment(env={"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}))


def _peers(failure: Failure) -> Iterator[Change]:
    if failure.engine == "vllm" and len(failure.plan.devices) > 1 and _PEERS.search(failure.log):
        yield _change(Adjustment(options={"disable-custom-all-reduce": True}, env={"NCCL_P2P_DISABLE": "1"}))


def _less_context(failure: Failure) -> Iterator[Change]:
    """What the engine says would fit; where it does not tell, a half, then a quarter of that, then the floor."""
    floor = failure.profile.context.floor
    fitting = _fitting(failure)
    if fitting is None:
        share = {1: 2, 2: 4}.get(failure.number)
        fitting = max(floor, failure.plan.context // share) if share else floor
    if fitting >= floor:
        yield from _context(failure, max(floor, fitting // ROUNDING * ROUNDING))


def _context(failure: Failure, most: int) -> Iterator[Change]:
    if failure.overrides.context is None and failure.profile.context.floor <= most < failure.plan.context:
        yield _change(Adjustment(context=most))


def _fitting(failure: Failure) -> int | None:
    """Tokens per user that the engine says it has room for."""
    if told := next((match for pattern in _FITS if (match := pattern.search(failure.log))), None):
        return int(told[1])
    room = _ROOM_ON_NODE.search(failure.log)
    return int(failure.plan.context * float(room[1]) / float(room[2])) if room else None


def _smaller_kv(failure: Failure) -> Iterator[Change]:
    """The KV types that the profile lists after the one that was planned."""
    kinds = failure.profile.kv_types
    yield from _other_kv(
        failure, kinds[kinds.index(failure.plan.kv_type) + 1 :] if failure.plan.kv_type in kinds else ()
    )


def _other_kv(failure: Failure, kinds: tuple[str, ...]) -> Iterator[Change]:
    allowed = tuple(kind for kind in kinds if kind in failure.profile.kv_types)
    if allowed and failure.overrides.kv_type is None and not failure.adopted:
        yield _change(Adjustment(kv_types=allowed))


def _without_flash(failure: Failure) -> Iterator[Change]:
    """A smaller V cache needs flash attention, which the profile has switched off."""
    yield from _other_kv(failure, ("f16",))
    off = {key: False for key in failure.profile.options if key.replace("_", "-") in ("flash-attn", "fa")}
    if off:
        yield _change(Adjustment(options=off))


def _fewer_users(failure: Failure) -> Iterator[Change]:
    if failure.overrides.users is None and failure.plan.users > 1 and not failure.adopted:
        yield _change(Adjustment(users=failure.plan.users // 2))


def _fewer_images(failure: Failure) -> Iterator[Change]:
    if failure.overrides.images is None and failure.plan.images > 1:
        yield _change(Adjustment(images=1))


def _fewer_sequences(failure: Failure) -> Iterator[Change]:
    now = int(failure.plan.settings.get("max_num_seqs", 0))
    fewer = max(failure.plan.users, _FEWEST_SEQUENCES, now // 4)
    if fewer < now:
        yield _options(max_num_seqs=fewer)


def _eager(failure: Failure) -> Iterator[Change]:
    if failure.engine == "vllm" and not failure.profile.options.get("enforce-eager"):
        yield _options(enforce_eager=True)


def _more_utilisation(failure: Failure) -> Iterator[Change]:
    """The plan's margin, down to what a tight plan leaves, as more KV cache."""
    now = failure.plan.settings.get("gpu_memory_utilization")
    if now is None or not failure.plan.memory or UTILISATION in failure.profile.options:
        return
    spare = min(
        (gpu.margin_bytes - gpu.kv_spare_bytes - int(TIGHT_SHARE * gpu.total_bytes)) / cuda_total(gpu.total_bytes)
        for gpu in failure.plan.memory
    )
    if spare >= 0.01:
        yield _change(Adjustment(utilisation=math.floor((float(now) + spare) * 1000) / 1000))


_CAUSES: Mapping[str, Remedy] = {
    "cli_flags": _flags,
    "port": _port,
    "oom_kv": _kv_short,
    "oom_weights": _weights_short,
    "gpu_busy": _planned_anew,
    "host_ram": _ram_short,
    "nvcc_jit": _compiler,
    "python_env": _compiler,
    "build": _compiler,
    "unknown": _compiler,
    "fork_spawn": _fork,
    "p2p": _peers,
    "nccl": _peers,
}
