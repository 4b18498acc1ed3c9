"""The tiny models themselves: what ships is what the generator makes, and each variant behaves on the real engine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.llamacpp.llama_servers import PACKAGE, PLAN, Rehearsal, weight_files
from support.tiny_model.model import tiny_model as build
from support.tiny_model.script import Script
from support.tiny_model.writing import write
from support.tiny_models import TinyModels

from mscli.catalog.load import load_one
from mscli.paths import shipped_profiles

THOUGHT = "The user wants an answer, so I plan one briefly."
TEXT_ONLY = replace(PLAN, images=0)


def test_the_shipped_pair_is_what_the_generator_makes(tmp_path: Path) -> None:
    made = write(tmp_path, build("small31"), ["q8_0"], "rehearsal")

    assert [path.name for path in made] == ["mmproj-rehearsal-f16.gguf", "rehearsal-q8_0.gguf"]
    for path in made:
        assert path.read_bytes() == (PACKAGE / "rehearsal" / path.name).read_bytes(), f"{path.name} differs"


def test_the_shipped_model_says_what_it_is() -> None:
    assert (
        b"mscli rehearsal (scripted stand-in, not a language model)"
        in (PACKAGE / "rehearsal" / "rehearsal-q8_0.gguf").read_bytes()
    )


def test_a_piece_with_two_successors_is_refused() -> None:
    with pytest.raises(ValueError, match="'a' leads to 'b' and to 'c'"):
        _ = Script(chains=(("a", "b"), ("a", "c")), cues=()).successors


def test_another_seed_gives_other_weights_of_the_same_size(tmp_path: Path) -> None:
    first, second = (write(tmp_path / str(seed), build("text", seed=seed), ["q8_0"])[0] for seed in (1, 2))

    assert first.stat().st_size == second.stat().st_size
    assert first.read_bytes() != second.read_bytes()


def test_a_text_model_refuses_images(llama: Rehearsal, tiny_model: TinyModels) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}
    with llama.start(weight_files(tiny_model("text")), TEXT_ONLY) as server:
        server.wait_for(200)
        answer = server.chat([{"type": "text", "text": "What is this?"}, picture])

    assert answer.status == 500
    assert "mmproj" in answer.data["error"]["message"]


def test_magistral_thinks_in_tokens_which_the_engine_sets_apart(llama: Rehearsal, tiny_model: TinyModels) -> None:
    with llama.start(weight_files(tiny_model("magistral")), TEXT_ONLY, like="magistral-2509-q4") as server:
        server.wait_for(200)
        message = server.chat("Hello").message

    assert message["reasoning_content"] == THOUGHT
    assert message["content"].startswith("Hello! This is a scripted stand-in")


@pytest.mark.parametrize("asked", [True, False])
def test_magistral_2506_thinks_in_text_when_its_system_prompt_asks(
    llama: Rehearsal, tiny_model: TinyModels, asked: bool
) -> None:
    _, real = load_one("magistral-gguf-q4", shipped_profiles(), None)
    system = real.system_prompt if asked else "Answer."
    messages = [{"role": "system", "content": system}, {"role": "user", "content": "Hello"}]
    with llama.start(weight_files(tiny_model("magistral2506")), TEXT_ONLY, like="magistral-gguf-q4") as server:
        server.wait_for(200)
        answer = server.request("/v1/chat/completions", {"messages": messages, "max_tokens": 64})

    assert answer.message.get("reasoning_content") == (f"\n{THOUGHT}\n" if asked else None)
    assert answer.message["content"].lstrip().startswith("Hello! This is a scripted stand-in")


def test_the_tool_syntax_of_later_tokenizers_is_understood(llama: Rehearsal, tiny_model: TinyModels) -> None:
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
    with llama.start(weight_files(tiny_model("magistral2506")), TEXT_ONLY, like="magistral-gguf-q4") as server:
        server.wait_for(200)
        [call] = server.chat("Weather in Paris?", tools=[tool]).message["tool_calls"]

    assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}


def test_an_f16_file_answers_like_the_quantised_one(llama: Rehearsal, tiny_model: TinyModels) -> None:
    with llama.start(weight_files(tiny_model("text", formats=("f16",))), TEXT_ONLY) as server:
        server.wait_for(200)

        assert server.chat("Hello").message["content"].endswith("nine, ten and stops.")


@pytest.mark.parametrize("variant", ["small31", "magistral"])
def test_both_safetensors_formats_hold_the_same_numbers(tiny_model: TinyModels, variant: str) -> None:
    folder = tiny_model(variant, formats=("mistral", "hugging-face")).folder
    sizes = [_tensor_sizes(folder / name) for name in ("consolidated.safetensors", "model.safetensors")]

    assert sorted(sizes[0]) == sorted(sizes[1])
    assert json.loads((folder / "params.json").read_text())["vocab_size"] == len(
        json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    )


def _tensor_sizes(path: Path) -> list[int]:
    """The number of values of each tensor, from the file's header."""
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    header.pop("__metadata__")
    for entry in header.values():
        begin, end = entry["data_offsets"]
        count = 1
        for size in entry["shape"]:
            count *= size
        assert end - begin == 2 * count
    return [entry["data_offsets"][1] - entry["data_offsets"][0] for entry in header.values()]
