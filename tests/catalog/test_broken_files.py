"""Files with one fault each: the error names file, line and key, what is wrong and which word was probably meant."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mscli.catalog.files import read_model
from mscli.catalog.load import Catalog, load_catalog, load_profile_file
from mscli.errors import Code, Exit, MscliError

BROKEN = Path(__file__).parent / "broken"

# file: line (None: the file as a whole), key, nearest valid word, what the message must say
PROFILES: dict[str, tuple[int | None, str | None, str | None, str]] = {
    "a name with spaces": (None, None, None, "the file's name is the profile's name"),
    "a-list": (1, None, None, "expected lines of `key: value` at the top, got a list"),
    "a-word": (1, None, None, "got the text 'small-q4'"),
    "alias-inside-itself": (6, "context.floor", None, "*here has no finished &here before it"),
    "api-key-in-options": (6, "options.api-key", None, "keeps it out of files and process lists"),
    "automatic-on-the-cpu": (6, "automatic", None, "only started by name"),
    "automatic-with-offload": (6, "automatic", None, "only started by name"),
    "cap-beyond-model": (6, "context.cap", None, "mistral-small-3.1 ends at 131072 tokens"),
    "capability-without-minor": (
        6,
        "needs.compute_capability",
        None,
        "expected a version such as 8.9, got the number 8",
    ),
    "container-without-image": (1, "image", None, "missing; vllm-docker needs a container image"),
    "context-as-text": (6, "context.cap", None, "got the text '32k'; write the number out: 32768 or 32000"),
    "context-not-a-section": (5, "context", None, "expected a section of keys, got the number 32768"),
    "control-character": (2, None, None, "control characters are not allowed"),
    "duplicate-key": (6, "users", None, "given twice; first on line 5"),
    "duplicate-nested-key": (7, "context.floor", None, "given twice; first on line 6"),
    "empty": (1, None, None, "the file is empty"),
    "empty-value": (5, "users", None, "has no value; it is how many concurrent requests to plan for"),
    "engine-in-capitals": (2, "engine", "ollama", "unknown engine 'Ollama'; did you mean 'ollama'?"),
    "engine-is-a-number": (2, "engine", None, "expected one of ollama, vllm"),
    "env-with-nothing": (6, "env.HOME", None, "expected text, got nothing"),
    "flag-as-number": (5, "offload", None, "expected true or false, got the number 1"),
    "flag-as-yes": (5, "automatic", "true", "expected true or false, got the text 'yes'; write true"),
    "floor-above-cap": (6, "context.floor", None, "65536 is above the cap of 32768"),
    "floor-is-a-flag": (6, "context.floor", None, "expected a whole number of tokens, got true"),
    "gpus-on-the-cpu": (6, "gpus", None, "a CPU profile uses no GPUs; write []"),
    "host-is-a-url": (5, "host", None, "leave out http:// and paths"),
    "host-is-no-address": (5, "host", None, "'127.0.0.256' is not an IP address"),
    "host-with-port": (5, "host", None, "the port has its own key 'port'"),
    "image-without-container": (5, "image", None, "the engine llama.cpp does not run in a container"),
    "images-for-a-text-model": (5, "images", None, "accepts text only; write 0"),
    "json-with-a-fault": (6, "users", None, "expected a whole number of users, got the text 'two'"),
    "key-is-a-list": (5, None, None, "a key must be a single word"),
    "kv-type-twice": (5, "kv_types", None, "the same entry is listed twice"),
    "kv-types-not-a-list": (5, "kv_types", None, "expected a list, got the text 'q8_0'; write [q8_0]"),
    "latin-1": (1, None, None, "not UTF-8 text: byte 0xfc"),
    "merge-of-a-number": (6, "context.<<", None, "expected a section to merge, got the number 3"),
    "missing-engine": (1, "engine", None, "missing; it is the inference engine: ollama, vllm"),
    "missing-model": (1, "model", None, "missing; it is the name of a model"),
    "negative-floor": (6, "context.floor", None, "-1 is out of range; the minimum is 1"),
    "no-colon": (5, None, None, "expected `key: value`, found no colon"),
    "no-gpus": (5, "gpus", None, "needs at least one GPU count; write [1], or device: cpu"),
    "octal": (5, "users", None, "expected a whole number of users, got the text '010'"),
    "only-comments": (1, None, None, "the file is empty"),
    "option-that-the-plan-decides": (6, "options.ctx-size", None, "set by the key 'context'"),
    "option-decided-with-underscore": (6, "options.ctx_size", None, "set by the key 'context'"),
    "option-with-a-list": (6, "options.lora", None, "expected text, a number, true or false, got a list"),
    "option-with-dashes": (6, "options.--threads", None, "an engine's flag without its leading dashes"),
    "port-out-of-range": (5, "port", None, "70000 is out of range; the range is 1 to 65,535"),
    "port-zero": (5, "port", None, "0 is out of range; the range is 1 to 65,535"),
    "python-tag": (5, "env", None, "means nothing here; remove it"),
    "ram-in-gb-or-gib": (6, "needs.ram_bytes", None, "write GB for 1,000,000,000 bytes or GiB for 1,073,741,824"),
    "ram-negative": (6, "needs.ram_bytes", None, "-5 is out of range"),
    "ram-without-unit": (6, "needs.ram_bytes", None, "14.3 has no unit"),
    "rank-negative": (5, "rank", None, "-3 is out of range"),
    "second-colon": (1, None, None, "a second colon in one line; put the value in quotes"),
    "second-document": (5, None, None, "a second document starts here"),
    "several-faults": (2, "engine", "ollama", "did you mean 'ollama'? (and 2 more faults in this file)"),
    "tab-indentation": (6, None, None, "a tab in the indentation; YAML takes spaces only"),
    "target-above-cap": (6, "context.target", None, "65536 is above the cap of 32768"),
    "target-below-floor": (7, "context.target", None, "4096 is below the floor of 8192"),
    "three-gpus-for-eight-heads": (7, "gpus[1]", None, "3 GPUs cannot share 8 KV heads evenly; 1, 2, 4, 8 can"),
    "title-is-a-number": (1, "title", None, "expected text, got the number 31; put it in quotes"),
    "title-is-empty": (1, "title", None, "expected text, got empty text"),
    "unclosed-bracket": (5, None, None, "did not find expected ',' or ']'"),
    "unclosed-quote": (1, None, None, "found unexpected end of stream while scanning a quoted scalar"),
    "unknown-alias": (5, "context", None, "*nowhere has no finished &nowhere before it"),
    "unknown-device": (5, "device", "gpu", "unknown device 'tpu'; did you mean 'gpu'?"),
    "unknown-engine": (2, "engine", "vllm", "unknown engine 'vlm'; did you mean 'vllm'?"),
    "unknown-key": (5, "contxt", "context", "unknown key; did you mean 'context'?"),
    "unknown-key-nothing-near": (5, "zzz", None, "unknown key; there is title, engine, model"),
    "unknown-kv-type": (5, "kv_types[1]", "q8_0", "unknown KV cache type 'q8'; did you mean 'q8_0'?"),
    "unknown-model": (3, "model", "mistral-small-3.1", "did you mean 'mistral-small-3.1'?"),
    "unknown-nested-key": (6, "context.flor", "floor", "unknown key; did you mean 'floor'?"),
    "unknown-variant": (4, "variant", "q4_k_m", "has no variant 'q4_k_n'; did you mean 'q4_k_m'?"),
    "utf-16": (1, None, None, "not UTF-8 text: byte 0xff"),
    "variant-of-another-engine": (4, "variant", None, "llama.cpp cannot load 'bf16' (safetensors-mistral, bf16)"),
    "visible-devices-in-env": (6, "env.CUDA_VISIBLE_DEVICES", None, "the plan decides it"),
    "zero-gpus": (5, "gpus[1]", None, "0 is out of range"),
}

MODELS: dict[str, tuple[int, str, str | None, str]] = {
    "file-leads-out": (45, "variants.q8_0.source.files[0]", None, "leads out of its folder"),
    "heads-do-not-divide": (13, "architecture.text.kv_heads", None, "3 does not divide the 4 heads"),
    "host-bytes-above-weights": (39, "variants.q8_0.host_bytes", None, "more than all 2,302,976 bytes of the weights"),
    "hub-without-owner": (44, "variants.q8_0.source.repository", None, "expected OWNER/NAME on Hugging Face"),
    "no-variants": (33, "variants", None, "it needs at least one entry"),
    "projector-without-vision": (19, "capabilities", None, "vision needs the sizes of the vision encoder"),
    "reasoning-contradicts": (30, "reasoning", None, "'think-text' contradicts the list 'capabilities'"),
    "recommended-beyond-limit": (29, "context_recommended", None, "beyond the model's limit of 131072 tokens"),
    "released-is-no-date": (2, "released", None, "expected a date such as 2025-03-17"),
    "revision-leads-out": (45, "variants.q8_0.source.revision", None, "leads out of its folder"),
    "source-and-format-differ": (42, "variants.q8_0.source.repository", None, "it is the tag of the Ollama library"),
    "temperature-out-of-range": (31, "sampling.temperature", None, "15 is out of range; the range is 0 to 2"),
    "unknown-capability": (29, "capabilities[0]", "vision", "unknown capability 'vison'; did you mean 'vision'?"),
    "unknown-format": (35, "variants.q8_0.format", "gguf", "unknown format 'ggml'; did you mean 'gguf'?"),
    "unknown-quantisation": (36, "variants.q8_0.quantisation", "q8_0", "did you mean 'q8_0'?"),
    "weights-missing": (34, "variants.q8_0.weights_bytes", None, "missing; it is the size of the text weights"),
    "weights-of-nothing": (37, "variants.q8_0.weights_bytes", None, "0 is out of range; the minimum is 1"),
    "weights-too-heavy": (37, "variants.q8_0.weights_bytes", None, "is 46 bytes each; no format takes over 16"),
}


def check(error: MscliError, path: Path, line: int | None, key: str | None, nearest: str | None, says: str) -> None:
    """One fault as a user sees it."""
    place = f"{path}:{line}: " if line else f"{path}: "
    assert error.message.startswith(place + (f"key '{key}': " if key else "")), error.message
    assert says in error.message
    assert "\n" not in error.message
    assert (error.code, error.exit_code) == (Code.PROFILE_INVALID, Exit.FAILED)
    seen = {name: error.details[name] for name in ("file", "line", "key", "nearest")}
    assert seen == {"file": str(path), "line": line, "key": key, "nearest": nearest}
    assert "mscli profiles validate" in error.hint


@pytest.mark.parametrize("name", PROFILES)
def test_a_broken_profile_gives_file_line_key_and_the_nearest_word(name: str, catalog: Catalog) -> None:
    path = BROKEN / f"{name}.yaml"
    with pytest.raises(MscliError) as caught:
        load_profile_file(path, catalog)
    check(caught.value, path, *PROFILES[name])


@pytest.mark.parametrize("name", MODELS)
def test_a_broken_model_gives_file_line_key_and_the_nearest_word(name: str) -> None:
    path = BROKEN / "models" / f"{name}.yaml"
    with pytest.raises(MscliError) as caught:
        read_model(path)
    check(caught.value, path, *MODELS[name])


def test_every_broken_file_is_in_a_table() -> None:
    assert {path.stem for path in BROKEN.glob("*.yaml")} == set(PROFILES)
    assert {path.stem for path in (BROKEN / "models").glob("*.yaml")} == set(MODELS)


def test_all_faults_of_a_file_are_in_the_details_for_scripts(catalog: Catalog) -> None:
    with pytest.raises(MscliError) as caught:
        load_profile_file(BROKEN / "several-faults.yaml", catalog)
    faults = caught.value.details["faults"]
    assert isinstance(faults, list)
    assert [(fault["line"], fault["key"]) for fault in faults] == [(2, "engine"), (5, "users"), (6, "port")]


def test_a_folder_in_place_of_a_file(tmp_path: Path, catalog: Catalog) -> None:
    with pytest.raises(MscliError, match="is a folder, not a YAML file") as caught:
        load_profile_file(tmp_path, catalog)
    assert caught.value.code == Code.PROFILE_INVALID


@pytest.mark.parametrize("kind", ["pipe", "/dev/zero", "/dev/tty", "link to a pipe"])
def test_a_pipe_or_a_device_in_place_of_a_file_is_refused_at_once(tmp_path: Path, catalog: Catalog, kind: str) -> None:
    path = Path(kind) if kind.startswith("/") else tmp_path / "mine.yaml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to a pipe":
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to(tmp_path / "pipe")
    with pytest.raises(MscliError) as caught:
        load_profile_file(path, catalog)
    assert caught.value.code == Code.PROFILE_INVALID


def test_a_pipe_among_ones_own_profiles_does_not_hold_the_others(tmp_path: Path, shipped: Path) -> None:
    os.mkfifo(tmp_path / "mine.yaml")
    (tmp_path / "models").mkdir()
    os.mkfifo(tmp_path / "models" / "mine.yaml")
    catalog = load_catalog(shipped, tmp_path)
    assert len(catalog.broken) == 2
    assert "small-q4" in catalog.profiles


def test_a_file_that_is_not_there(tmp_path: Path, catalog: Catalog) -> None:
    with pytest.raises(MscliError, match="there is no such file"):
        load_profile_file(tmp_path / "mine.yaml", catalog)


def test_a_link_that_leads_to_itself_cannot_be_read(tmp_path: Path, catalog: Catalog) -> None:
    path = tmp_path / "mine.yaml"
    path.symlink_to(path)
    with pytest.raises(MscliError, match=r"mine\.yaml: cannot be read: Too many levels of symbolic links"):
        load_profile_file(path, catalog)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file(tmp_path: Path, catalog: Catalog) -> None:
    path = tmp_path / "mine.yaml"
    path.touch(mode=0)
    with pytest.raises(MscliError, match="cannot be read: Permission denied"):
        load_profile_file(path, catalog)


def test_an_endless_file_is_refused_after_the_first_megabyte(tmp_path: Path, catalog: Catalog) -> None:
    path = tmp_path / "mine.yaml"
    path.touch()
    os.truncate(path, 1 << 40)
    with pytest.raises(MscliError, match="larger than 1 MiB"):
        load_profile_file(path, catalog)


@pytest.mark.parametrize("text", ["[" * 100_000, "a: " + "[" * 60_000 + "]" * 60_000, "- " * 100_000, "{a: " * 60_000])
def test_deep_nesting_is_refused_and_does_not_end_the_interpreter(tmp_path: Path, catalog: Catalog, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(MscliError, match=r"mine\.yaml:1: nested more than 16 levels deep"):
        load_profile_file(path, catalog)


def test_a_billion_laughs_are_not_expanded(tmp_path: Path, catalog: Catalog) -> None:
    path = tmp_path / "mine.yaml"
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 60))]
    path.write_text("\n".join(lines))
    with pytest.raises(MscliError, match=r"mine\.yaml:1: key '"):
        load_profile_file(path, catalog)
