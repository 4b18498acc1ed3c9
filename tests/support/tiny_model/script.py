"""What the tiny models say, and when: chains of vocabulary pieces, each piece leading to the next.

A piece may stand in one place of one chain only, since a piece has one successor.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

REPLY = (
    *("Hello", "! This is", " a scripted", " stand-in", ", not a", " language model", ": a real", " engine"),
    *(" sampled", " every token", " from random", " weights", " with one", " planted path", ". It counts", ": one,"),
    *(" two,", " three,", " four,", " five,", " six,", " seven,", " eight,", " nine,", " ten", " and stops."),
)
AFTER_TOOL_RESULT = ("The weather in Paris", " is sunny", ", 21 degrees.")
IMAGE_SEEN = ("I can see", " one image", " in this request.")
THOUGHT = ("The user wants", " an answer", ", so I plan", " one briefly.")
TOOL_CALL = {
    "v7": ("[TOOL_CALLS]", '[{"name": "get_weather"', ', "arguments": {"city"', ': "Paris"}}]'),
    "v11": ("[TOOL_CALLS]", "get_weather", "[ARGS]", '{"city"', ': "Paris"}'),
}
# How a system prompt's "<think>" begins, once split into words: the cue for plain-text reasoning.
THINK_CUE = "<think"


@dataclass(frozen=True)
class Variant:
    """One kind of model. `reasoning` as in the catalogue: none, think-text or think-tokens. `context` in tokens."""

    name: str
    vision: bool
    tokenizer_version: str
    reasoning: str
    context: int

    @property
    def tool_syntax(self) -> str:
        """The tokenizer's first version with this syntax: v7 writes a JSON list, v11 name[ARGS]arguments."""
        return "v7" if self.tokenizer_version == "v7" else "v11"


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("small31", vision=True, tokenizer_version="v7", reasoning="none", context=131072),
        Variant("text", vision=False, tokenizer_version="v7", reasoning="none", context=131072),
        Variant("magistral2506", vision=False, tokenizer_version="v11", reasoning="think-text", context=40960),
        Variant("magistral", vision=False, tokenizer_version="v13", reasoning="think-tokens", context=40960),
    )
}


@dataclass(frozen=True)
class Cue:
    """While `sign` is anywhere in the prompt, `[/INST]` leads to `answer`. The greater `weight` wins over the lesser.

    `sign` None: an image's embeddings.
    """

    sign: str | None
    answer: str
    weight: float


@dataclass(frozen=True)
class Script:
    """`chains`: pieces in the order they follow each other. `cues`: what makes `[/INST]` begin another chain."""

    chains: tuple[tuple[str, ...], ...]
    cues: tuple[Cue, ...]

    @property
    def successors(self) -> dict[str, str]:
        """The piece that follows each piece. Raises ValueError when a piece would have two."""
        links: dict[str, str] = {}
        for chain in self.chains:
            for piece, following in pairwise(chain):
                if links.setdefault(piece, following) != following:
                    raise ValueError(f"{piece!r} leads to {links[piece]!r} and to {following!r}")
        return links

    @property
    def pieces(self) -> tuple[str, ...]:
        """Every piece the script needs, once each, in order."""
        signs = [cue.sign for cue in self.cues if cue.sign]
        return tuple(dict.fromkeys([piece for chain in self.chains for piece in chain] + signs))


def script(variant: Variant) -> Script:
    """What this variant says."""
    call = TOOL_CALL[variant.tool_syntax]
    chains = [(*call, "</s>"), ("[/TOOL_RESULTS]", *AFTER_TOOL_RESULT, "</s>")]
    cues = [Cue("[AVAILABLE_TOOLS]", call[0], weight=1.5)]
    if variant.vision:
        chains.append((*IMAGE_SEEN, "</s>"))
        cues.append(Cue(None, IMAGE_SEEN[0], weight=1.25))
    if variant.reasoning == "think-text":
        thinking = ("<think>\n", *THOUGHT, "\n</think>\n\n")
        chains.append((*thinking, REPLY[0]))
        cues.append(Cue(THINK_CUE, thinking[0], weight=1.25))
    opening = ("[THINK]", *THOUGHT, "[/THINK]") if variant.reasoning == "think-tokens" else ()
    chains.append(("[/INST]", *opening, *REPLY, "</s>"))
    return Script(tuple(chains), tuple(cues))
