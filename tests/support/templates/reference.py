"""What mistral_common encodes a conversation to, and a rendered prompt as tokens, by tokenizer version.

It needs Python 3.11.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import mistral_common
import numpy as np
from mistral_common.exceptions import MistralCommonException
from mistral_common.protocol.instruct.normalize import get_normalizer
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.protocol.instruct.validator import ValidationMode, get_validator
from mistral_common.tokens.tokenizers.base import SpecialTokens, TokenizerVersion
from mistral_common.tokens.tokenizers.image import ImageEncoding
from mistral_common.tokens.tokenizers.instruct import InstructTokenizerV7, InstructTokenizerV11, InstructTokenizerV13
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from mistral_common.tokens.tokenizers.tekken import Tekkenizer

Message = Mapping[str, Any]
# The vocabulary that the library brings. Which special tokens a version has is said to it, in the order of their names.
_TEKKEN = Path(mistral_common.__file__).parent / "data" / "tekken_240911.json"
_THINK = ("begin_think", "end_think")
_INSTRUCT = {
    "v7": (InstructTokenizerV7, ("args", "call_id", *_THINK)),
    "v11": (InstructTokenizerV11, _THINK),
    "v13": (InstructTokenizerV13, ()),
}


class Refused(Exception):
    """mistral_common does not encode the conversation."""


class Reference:
    """mistral_common for one tokenizer version, with an image as one token: only its place is a template's matter."""

    def __init__(self, version: str) -> None:
        instruct, unknown = _INSTRUCT[version]
        names = [token for token in SpecialTokens if token.name not in unknown]
        written = json.loads(_TEKKEN.read_text())
        tekken = Tekkenizer(
            vocab=written["vocab"],
            special_tokens=[
                {"rank": rank, "token_str": name.value, "is_control": True} for rank, name in enumerate(names)
            ],
            pattern=written["config"]["pattern"],
            vocab_size=written["config"]["default_vocab_size"],
            num_special_tokens=written["config"]["default_num_special_tokens"],
            version=TokenizerVersion(version),
        )
        image = ImageEncoding(tokens=[tekken.get_special_token("[IMG]")], image=np.zeros(0))
        self._tekken = tekken
        self._special = {name.value: tekken.get_special_token(name.value) for name in names}
        self._split = re.compile("(" + "|".join(re.escape(name.value) for name in names) + ")")
        self._tokenizer = MistralTokenizer(
            instruct(tekken, image_encoder=lambda _chunk: image),
            get_validator(TokenizerVersion(version), ValidationMode.serving),
            get_normalizer(TokenizerVersion(version)),
        )

    def encode(self, messages: Sequence[Message], tools: Sequence[Message]) -> list[int]:
        """The tokens of a conversation in OpenAI's form. Raises Refused."""
        try:
            request = ChatCompletionRequest.from_openai(messages=list(messages), tools=list(tools) or None, model="any")
            return self._tokenizer.encode_chat_completion(request).tokens
        except (MistralCommonException, ValueError, AssertionError, AttributeError, KeyError) as fault:
            raise Refused(str(fault)) from fault

    def tokens(self, prompt: str) -> list[int]:
        """The tokens of a rendered prompt, in which special tokens stand as their names: so engines read it."""
        tokens: list[int] = []
        for part in self._split.split(prompt):
            tokens += (
                [self._special[part]] if part in self._special else self._tekken.encode(part, bos=False, eos=False)
            )
        return tokens


@cache
def reference(version: str) -> Reference:
    """Made once: the vocabulary takes a second to read."""
    return Reference(version)
