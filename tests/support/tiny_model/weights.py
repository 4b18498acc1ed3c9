"""Random weights with a planted path, so that every engine says the script although it computes each token.

How the path is planted. The embeddings of the script's tokens are rows of a Hadamard matrix: of unit root mean square
and exactly orthogonal. The feed-forward blocks and all but the first layer's attention write nothing, so what arrives
at the output is the last token's embedding; the output matrix maps it to the token's successor with a logit of 60. In
the first layer, one attention head per cue lets `[/INST]` look for the cue's sign anywhere before it and adds a mark to
the residual stream where it is found; the output matrix turns the mark into the cue's answer. Any token outside the
script leads to a random other one, never to `</s>`: endless nonsense, for tests of length limits.

All numbers come from the raw bits of PCG64, whose stream NumPy guarantees, and from exactly rounded arithmetic: the
same seed gives the same bytes everywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from support.tiny_model.script import Cue, Script
from support.tiny_model.tokenizer import IMAGE_BREAK, SPECIAL_TOKENS, Tokenizer

Array = NDArray[np.float32]

LOGIT = 60.0
# Of a cue's sign before softmax: e**32 outweighs any number of other tokens.
ATTENTION = 32.0
ROPE_THETA = 1e9
VISION_ROPE_THETA = 1e4
NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class TextShape:
    """The decoder's sizes."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int = 256
    ffn: int = 512


@dataclass(frozen=True)
class VisionShape:
    """The vision encoder's sizes; `patch` and `image` in pixels."""

    hidden: int = 64
    ffn: int = 128
    layers: int = 2
    heads: int = 2
    patch: int = 14
    image: int = 224
    merge: int = 2


SHAPES = {
    "tiny": TextShape(layers=2, heads=4, kv_heads=2, head_dim=64),
    # As many bytes of KV cache per token as the real 24B models (163,840 in f16).
    "kv24b": TextShape(layers=40, heads=8, kv_heads=8, head_dim=128),
}


class Attention(NamedTuple):
    """The matrices of one attention block, (outputs, inputs); neighbouring rows of query and key rotate together."""

    query: Array
    key: Array
    value: Array
    output: Array


@dataclass(frozen=True)
class Layer:
    """One transformer layer."""

    query: Array
    key: Array
    value: Array
    output: Array
    gate: Array
    up: Array
    down: Array
    attention_norm: Array
    ffn_norm: Array


@dataclass(frozen=True)
class VisionWeights:
    """The vision encoder and its projector into the text's embeddings."""

    patch: Array
    pre_norm: Array
    layers: tuple[Layer, ...]
    projector_norm: Array
    merge: Array
    project_in: Array
    project_out: Array
    image_break: Array


@dataclass(frozen=True)
class Weights:
    """All of a model. `vision` None: text only."""

    embedding: Array
    norm: Array
    head: Array
    layers: tuple[Layer, ...]
    vision: VisionWeights | None


class Dice:
    """Random numbers whose stream does not depend on NumPy's version."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def uniform(self, deviation: float, *shape: int) -> Array:
        """Of mean 0 and the given standard deviation."""
        raw = self._bits.random_raw(math.prod(shape)) >> np.uint64(11)
        centred = raw.astype(np.float64) * 2.0**-52 - 1.0
        return (centred * (deviation * math.sqrt(3))).astype(np.float32).reshape(shape)

    def signs(self, *shape: int) -> Array:
        """-1 or +1."""
        raw = self._bits.random_raw(math.prod(shape)) >> np.uint64(63)
        return (raw.astype(np.float32) * 2 - 1).reshape(shape)

    def permutation(self, count: int) -> NDArray[np.int64]:
        """The numbers below `count`, shuffled."""
        return np.argsort(self._bits.random_raw(count), kind="stable")


def hadamard(size: int) -> Array:
    """Sylvester's matrix of +-1 with orthogonal rows; `size` is a power of two."""
    matrix = np.ones((1, 1), dtype=np.float32)
    while matrix.shape[0] < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


@dataclass(frozen=True)
class _Look:
    """One attention head's errand: from `[/INST]` to the embedding `sign`, leaving `mark`."""

    cue: Cue
    sign: Array
    mark: Array


def _first_attention(shape: TextShape, instruction_end: Array, looks: list[_Look]) -> Attention:
    """The first layer's attention. Cues share a KV head by using different rows of it, all of low frequencies."""
    hidden, dim, group = shape.hidden, shape.head_dim, shape.heads // shape.kv_heads
    strength = math.sqrt(ATTENTION * math.sqrt(dim))
    query = np.zeros((shape.heads * dim, hidden), dtype=np.float32)
    key = np.zeros((shape.kv_heads * dim, hidden), dtype=np.float32)
    value, output = np.zeros_like(key), np.zeros_like(query.T)
    for number, look in enumerate(looks):
        turn, kv_head = divmod(number, shape.kv_heads)
        head, row = kv_head * group + turn, dim - 2 - 2 * turn
        query[head * dim + row] = strength / hidden * instruction_end
        key[kv_head * dim + row] = strength / hidden * look.sign
        value[kv_head * dim + turn] = look.sign / hidden
        output[:, head * dim + turn] = look.mark
    return Attention(query, key, value, output)


def _layers(shape: TextShape, dice: Dice, first: Attention) -> tuple[Layer, ...]:
    """The first layer's attention as given; feed-forward blocks compute with random weights and write nothing."""
    silent = Attention(*(np.zeros_like(matrix) for matrix in first))
    ones = np.ones(shape.hidden, dtype=np.float32)
    down = np.zeros((shape.hidden, shape.ffn), dtype=np.float32)

    def layer(attention: Attention) -> Layer:
        gate, up = (dice.uniform(0.02, shape.ffn, shape.hidden) for _ in range(2))
        return Layer(*attention, gate, up, down, ones, ones)

    return tuple(layer(attention) for attention in [first] + [silent] * (shape.layers - 1))


def _vision(shape: VisionShape, hidden: int, dice: Dice, sign: Array, image_break: Array) -> VisionWeights:
    """A random tower whose projector writes nothing but multiples of `sign`."""
    ones = np.ones(shape.hidden, dtype=np.float32)

    def random(*size: int) -> Array:
        return dice.uniform(0.1, *size)

    def layer() -> Layer:
        attention = Attention(*(random(shape.hidden, shape.hidden) for _ in range(4)))
        gate, up = (random(shape.ffn, shape.hidden) for _ in range(2))
        return Layer(*attention, gate, up, random(shape.hidden, shape.ffn), ones, ones)

    layers = tuple(layer() for _ in range(shape.layers))
    return VisionWeights(
        patch=random(shape.hidden, 3, shape.patch, shape.patch),
        pre_norm=ones,
        layers=layers,
        projector_norm=ones,
        merge=random(shape.hidden, shape.hidden * shape.merge**2),
        project_in=random(hidden, shape.hidden),
        project_out=np.repeat(sign[:, None] * np.float32(0.05), hidden, axis=1),
        image_break=image_break,
    )


def _wandering(tokens: Tokenizer, planted: set[int]) -> NDArray[np.int64]:
    """The readable tokens outside the script, between which nonsense wanders."""
    learned = tokens.vocabulary[: len(tokens.vocabulary) - tokens.fillers]
    readable = [SPECIAL_TOKENS + i for i, token in enumerate(learned) if all(31 < byte < 127 for byte in token)]
    return np.array([token for token in readable if token not in planted])


def _planted(script: Script, tokens: Tokenizer) -> set[int]:
    """The tokens that need embeddings of their own."""
    named = {i for i, name in enumerate(tokens.special) if not name.startswith("<SPECIAL_")}
    return named | {tokens.id(piece) for piece in script.pieces}


def _head(script: Script, tokens: Tokenizer, embedding: Array, looks: list[_Look], dice: Dice) -> Array:
    """The output matrix: from each token's embedding to its successor, from each mark to its cue's answer."""
    step = np.float32(LOGIT / embedding.shape[1])
    wandering = _wandering(tokens, _planted(script, tokens))
    head = dice.uniform(0.02, *embedding.shape)
    for piece, following in script.successors.items():
        head[tokens.id(following)] += step * embedding[tokens.id(piece)]
    head[wandering[dice.permutation(len(wandering))]] += step * embedding[wandering]
    for look in looks:
        head[tokens.id(look.cue.answer)] += np.float32(look.cue.weight) * step * look.mark
    return head


def weights(shape: TextShape, vision: VisionShape | None, script: Script, tokens: Tokenizer, seed: int) -> Weights:
    """Weights that say `script`."""
    dice = Dice(seed)
    rows = iter(hadamard(shape.hidden)[dice.permutation(shape.hidden)])
    embedding = dice.signs(tokens.size, shape.hidden)
    for token in sorted(_planted(script, tokens)):
        embedding[token] = next(rows)
    image_sign = next(rows)
    signs = [image_sign if cue.sign is None else embedding[tokens.id(cue.sign)] for cue in script.cues]
    looks = [_Look(cue, sign, next(rows)) for cue, sign in zip(script.cues, signs, strict=True)]
    head = _head(script, tokens, embedding, looks, dice)
    first = _first_attention(shape, embedding[tokens.id("[/INST]")], looks)
    return Weights(
        embedding=embedding,
        norm=np.ones(shape.hidden, dtype=np.float32),
        head=head,
        layers=_layers(shape, dice, first),
        vision=_vision(vision, shape.hidden, dice, image_sign, embedding[IMAGE_BREAK]) if vision else None,
    )
