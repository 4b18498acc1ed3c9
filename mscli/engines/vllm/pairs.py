"""Versions of packages that break vLLM when they come together: known before a start, with the pin that mends it.

Each is documented where vLLM's or the package's makers keep their issues, and its versions were read in the sources of
the releases at both ends; the table is told to people in docs/reference/vllm.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from mscli.catalog.model import Model
from mscli.engines.engine import Installation
from mscli.frozen import frozen
from mscli.planning.request import parse_version

Version = tuple[int, ...]
FLASHINFER = ("flashinfer_cubin", "flashinfer_python")
NEVER: Version = (9999,)
NEWEST: Version = (0, 33)


@frozen
class Pair:
    """vLLM from `first` to before `end`, with `package` from `since` to before `until`, breaks.

    Only models released from `released` on, in the format `format` (empty: any), and only with another package before
    a version (`beside`) where it is due to both. `what`: what a user would see; `pin`: the requirement that goes well.
    """

    first: Version
    end: Version
    package: str
    what: str
    pin: str
    since: Version = (0,)
    until: Version = NEVER
    released: str = ""
    format: str = ""
    beside: tuple[str, Version] | None = None

    @property
    def cause(self) -> str:
        """The code of the closed cause list."""
        return self.package if self.package == "mistral_common" else "python_env"


# Where several name one package, the strictest pin stands first: it is the one that `engines install` takes.
PAIRS = (
    # Tokenizers from v11 on (Magistral, Small 3.2, Devstral 2507) take a grammar for which 1.13 asks one argument more.
    # Measured on 0.32.0; 0.20.0, 0.22.1 and 0.33.0 call the same function in the same way.
    Pair(
        first=(0, 20),
        end=(0, 34),
        package="mistral_common",
        since=(1, 13),
        released="2025-06",
        what="every chat is refused with HTTP 400 (get_lark_from_jinja() lacks 'force_tool_names')",
        pin="mistral_common==1.12.0",
    ),
    # vllm-project/vllm#39086. mistral_common 1.10.0 has no module `guidance`, 1.11.0 has; vLLM 0.19.1 does not ask for
    # it, 0.20.0 imports it with its tokenizers.
    Pair(
        first=(0, 20),
        end=(0, 34),
        package="mistral_common",
        until=(1, 11),
        what="it exits immediately (No module named 'mistral_common.guidance')",
        pin="mistral_common==1.12.0",
    ),
    # vllm-project/vllm#22178. Transformers 4.54 brought a model of the name that vLLM 0.9.0 to 0.9.2 register.
    Pair(
        first=(0, 9),
        end=(0, 10),
        package="transformers",
        since=(4, 54),
        what="it exits immediately ('aimv2' is already used by a Transformers config)",
        pin="transformers<4.54",
    ),
    # vllm-project/vllm#29686. Transformers 5 took the attribute away, 0.12.0 no longer asks for it.
    Pair(
        first=(0,),
        end=(0, 12),
        package="transformers",
        since=(5,),
        format="safetensors-hf",
        what="it cannot read its tokenizer (it has no attribute all_special_tokens_extended)",
        pin="transformers<5",
    ),
    # gpustack/gpustack#2769. numba 0.61 refuses a newer NumPy; vLLM 0.8.4 to 0.15 import it at every start.
    Pair(
        first=(0, 8, 4),
        end=(0, 16),
        package="numpy",
        since=(2, 3),
        beside=("numba", (0, 62)),
        what="it exits immediately (Numba needs NumPy 2.2 or less)",
        pin="numpy<2.3",
    ),
)


def pins(version: str | None) -> tuple[str, ...]:
    """The requirements to install beside this version of vLLM (None: the newest), one for each package."""
    known = parse_version(version) or NEWEST
    found: dict[str, str] = {}
    for pair in PAIRS:
        if pair.first <= known < pair.end:
            found.setdefault(pair.package, pair.pin)
    return tuple(found.values())


def broken(found: Installation, model: Model | None = None, weights_format: str = "") -> Pair | None:
    """The pair that this installation has, and that this model (None: some model) would meet with its weights in this
    format (empty: in some format)."""
    version = parse_version(found.version)
    had = (pair for pair in PAIRS if version and _has(pair, version, found.beside))
    return next((pair for pair in had if _meets(pair, model, weights_format)), None)


def unequal_flashinfer(found: Installation) -> str | None:
    """In words, that the two packages of FlashInfer have different versions: then it refuses to be imported, and vLLM
    ends on a GPU. vllm-project/vllm#49804, flashinfer-ai/flashinfer#4781."""
    kernels, library = (found.beside.get(name, "").partition("+")[0] for name in FLASHINFER)
    if not kernels or not library or kernels == library:
        return None
    return f"flashinfer-cubin {kernels} beside flashinfer-python {library}: FlashInfer needs the same version of both"


def _has(pair: Pair, vllm: Version, packages: Mapping[str, str]) -> bool:
    version = parse_version(packages.get(pair.package))
    if not pair.first <= vllm < pair.end or version is None or not pair.since <= version < pair.until:
        return False
    if pair.beside is None:
        return True
    other = parse_version(packages.get(pair.beside[0]))
    return other is not None and other < pair.beside[1]


def _meets(pair: Pair, model: Model | None, weights_format: str) -> bool:
    late_enough = model is None or model.released >= pair.released
    return late_enough and (not pair.format or weights_format in ("", pair.format))
