"""A small tokenizer of Mistral's kind: 1,000 special tokens, the 256 bytes, learned merges, and the script's pieces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

SPECIAL_TOKENS = 1000
MERGES = 600
ROUND_TO = 64

PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# In the order of their ids, as in Mistral's own tokenizers.
_V7_NAMES = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]"),
    *("[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]"),
    *("[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"),
)
_LATER_NAMES = {"v11": {32: "[ARGS]", 33: "[CALL_ID]"}, "v13": {34: "[THINK]", 35: "[/THINK]"}}
UNKNOWN, BEGIN, END, PAD, IMAGE, IMAGE_BREAK, IMAGE_END = 0, 1, 2, 11, 10, 12, 13

_TEXT = """
the of and to in is it you that he was for on are with as his they be at one have this from or had by hot but some
what there we can out other were all your when up use word how said an each she which do their time if will way about
many then them would write like so these her long make thing see him two has look more day could go come did my sound
no most number who over know water than call first people may down side been now find any new work part take get place
made live where after back little only round man year came show every good me give our under name very through just
form much great think say help low line before turn cause same mean differ move right boy old too does tell sentence
set three want air well also play small end put home read hand port large spell add even land here must big high such
follow act why ask men change went light kind off need house picture try us again animal point mother world near build
self earth father head stand own page should country found answer school grow study still learn plant cover weather
model token server image question please explain quantum computing simple terms Paris city system prompt hello
"""

Pair = tuple[bytes, bytes]


def _replaced(word: tuple[bytes, ...], pair: Pair) -> tuple[bytes, ...]:
    """`word` with each occurrence of the pair joined, left to right."""
    joined: list[bytes] = []
    i = 0
    while i < len(word):
        if word[i : i + 2] == pair:
            joined.append(pair[0] + pair[1])
            i += 2
        else:
            joined.append(word[i])
            i += 1
    return tuple(joined)


def learn_merges(text: str, count: int) -> tuple[Pair, ...]:
    """Byte-pair merges, the most frequent pair first and ties in byte order. No two merges make the same token.

    Only the words that hold the merged pair are counted anew, which keeps this well below a second.
    """
    spellings = Counter(form for word in text.split() for form in (word, f" {word}", f" {word.capitalize()}"))
    words = {tuple(bytes([byte]) for byte in form.encode()): number for form, number in spellings.items()}
    pairs: Counter[Pair] = Counter()
    for word, number in words.items():
        for pair in pairwise(word):
            pairs[pair] += number
    merges: list[Pair] = []
    made: set[bytes] = set()
    while len(merges) < count:
        fresh = [(-number, pair) for pair, number in pairs.items() if number and pair[0] + pair[1] not in made]
        if not fresh:
            break
        best = min(fresh)[1]
        merges.append(best)
        made.add(best[0] + best[1])
        for word in [word for word in words if best in pairwise(word)]:
            number, shorter = words.pop(word), _replaced(word, best)
            words[shorter] = words.get(shorter, 0) + number
            for pair in pairwise(word):
                pairs[pair] -= number
            for pair in pairwise(shorter):
                pairs[pair] += number
    return tuple(merges)


@dataclass(frozen=True)
class Tokenizer:
    """Token ids: the special tokens in order, then the vocabulary in order."""

    version: str
    special: tuple[str, ...]
    vocabulary: tuple[bytes, ...]
    merges: tuple[Pair, ...]
    fillers: int

    @property
    def size(self) -> int:
        """How many tokens there are in all."""
        return len(self.special) + len(self.vocabulary)

    @cached_property
    def ids(self) -> dict[str | bytes, int]:
        """Special tokens by their name, all others by their bytes."""
        pieces: list[str | bytes] = [*self.special, *self.vocabulary]
        return {piece: number for number, piece in enumerate(pieces)}

    def id(self, piece: str) -> int:
        """The token of a special name, or else of a text. Raises KeyError when there is none."""
        return self.ids[piece] if piece in self.ids else self.ids[piece.encode()]


def special_names(version: str) -> tuple[str, ...]:
    """Engines tell the tool-call syntax by the presence of [ARGS], so each version has only the names of its time."""
    names = dict(enumerate(_V7_NAMES))
    for since, later in _LATER_NAMES.items():
        if int(version[1:]) >= int(since[1:]):
            names |= later
    return tuple(names.get(i, f"<SPECIAL_{i}>") for i in range(SPECIAL_TOKENS))


def tokenizer(version: str, pieces: Iterable[str]) -> Tokenizer:
    """A tokenizer that holds each of `pieces` as one token, padded to a multiple of 64 tokens."""
    special = special_names(version)
    merges = learn_merges(_TEXT, MERGES)
    learned = [bytes([byte]) for byte in range(256)] + [left + right for left, right in merges]
    wanted = [piece.encode() for piece in pieces if piece not in special]
    vocabulary = list(dict.fromkeys(learned + wanted))
    fillers = -(len(special) + len(vocabulary)) % ROUND_TO
    vocabulary += [f"<filler{i}>".encode() for i in range(fillers)]
    return Tokenizer(version, special, tuple(vocabulary), merges, fillers)


def _printable_bytes() -> dict[int, str]:
    """GPT-2's table: each byte as a printable character."""
    direct = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in direct]
    return {byte: chr(byte) for byte in direct} | {byte: chr(256 + i) for i, byte in enumerate(others)}


_PRINTABLE = _printable_bytes()


def printable(token: bytes) -> str:
    """A token as the tokenizer files of Hugging Face and llama.cpp spell it."""
    return "".join(_PRINTABLE[byte] for byte in token)
