"""Weights that LM Studio has fetched already serve from its folder: nothing is fetched, nothing there is changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.hub import Hub
from support.weights.pulls import GGUF, QUICK, REPOSITORY, Heard, content, model, pull, variant, whole

import mscli
from mscli.errors import Code, MscliError
from mscli.weights.ensure import ensure, wanted
from mscli.weights.progress import WeightFiles
from mscli.weights.stored import verify

PROJECTOR = "mmproj.gguf"
WEIGHTS, PROJECTION = content(1_500_000), content(40_000, 2)
FOLDERS = (".lmstudio/models", ".cache/lm-studio/models")
REHEARSAL = Path(mscli.__file__).parent / "rehearsal"
PAIR = variant(GGUF, projector=PROJECTOR)


@pytest.fixture
def published(hub: Hub) -> Hub:
    hub.add(REPOSITORY, {GGUF: WEIGHTS, PROJECTOR: PROJECTION})
    return hub


def in_lm_studio(tmp_path: Path, files: dict[str, bytes], models: str = FOLDERS[0]) -> Path:
    """The files as LM Studio keeps them in the home of the test's user."""
    folder = tmp_path / "user" / models / REPOSITORY
    folder.mkdir(parents=True)
    for name, bytes_ in files.items():
        (folder / name).write_bytes(bytes_)
    return folder


def fetch(heard: Heard | None = None, *, offline: bool = False) -> WeightFiles:
    return ensure(model(), PAIR, heard or Heard(), offline=offline, timeouts=QUICK)


def rehearsal() -> dict[str, bytes]:
    """A real pair of GGUF files, under the names of the variant."""
    real = {GGUF: "rehearsal-q8_0.gguf", PROJECTOR: "mmproj-rehearsal-f16.gguf"}
    return {name: (REHEARSAL / file).read_bytes() for name, file in real.items()}


def sent(hub: Hub) -> int:
    return hub.sent_bytes(GGUF) + hub.sent_bytes(PROJECTOR)


@pytest.mark.parametrize("models", FOLDERS)
def test_nothing_is_fetched_when_the_copy_is_there(published: Hub, tmp_path: Path, models: str) -> None:
    folder = in_lm_studio(tmp_path, {GGUF: WEIGHTS, PROJECTOR: PROJECTION}, models)
    heard = Heard()
    files = fetch(heard)
    expected = WeightFiles(str(folder / GGUF), str(folder / PROJECTOR), len(WEIGHTS) + len(PROJECTION))
    assert files == expected
    assert sent(published) == 0, "weights were fetched though LM Studio has them"
    assert heard.codes == ["lm_studio"]
    assert str(folder) in heard.notes[0].message
    assert wanted(model(), PAIR).missing_bytes == 0, "a download is announced that does not take place"


@pytest.mark.parametrize(
    "files",
    [{GGUF: WEIGHTS[:-1], PROJECTOR: PROJECTION}, {GGUF: WEIGHTS + b"x", PROJECTOR: PROJECTION}, {GGUF: WEIGHTS}],
    ids=["cut", "longer", "no projector"],
)
def test_a_copy_that_is_not_as_the_hub_states_is_ignored(
    published: Hub, tmp_path: Path, cache: Path, files: dict[str, bytes]
) -> None:
    folder = in_lm_studio(tmp_path, files)
    fetched = fetch()
    assert Path(fetched.model).is_relative_to(cache)
    assert whole(fetched.model, WEIGHTS)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files, "LM Studio's folder was changed"


def test_the_hub_cache_wins_when_it_is_whole(published: Hub, tmp_path: Path, cache: Path) -> None:
    fetch()
    in_lm_studio(tmp_path, {GGUF: WEIGHTS, PROJECTOR: PROJECTION})
    heard = Heard()
    assert Path(fetch(heard).model).is_relative_to(cache)
    assert heard.codes == []


def test_only_gguf_variants_look_there(hub: Hub, tmp_path: Path, cache: Path) -> None:
    hub.add(REPOSITORY, {"model.safetensors": WEIGHTS})
    in_lm_studio(tmp_path, {"model.safetensors": WEIGHTS})
    assert Path(pull("model.safetensors", layout="safetensors-hf").model).is_relative_to(cache)


def test_offline_sizes_that_the_hub_told_before_are_enough(published: Hub, tmp_path: Path) -> None:
    wanted(model(), PAIR)
    folder = in_lm_studio(tmp_path, {GGUF: WEIGHTS, PROJECTOR: PROJECTION})
    published.forget_counts()
    assert fetch(offline=True).model == str(folder / GGUF)
    assert published.requests == []


@pytest.mark.parametrize("offline", [True, False], ids=["by request", "the hub does not answer"])
def test_offline_a_copy_of_the_length_that_its_header_says_serves(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    folder = in_lm_studio(tmp_path, rehearsal())
    heard = Heard()
    assert fetch(heard, offline=offline).model == str(folder / GGUF)
    assert heard.codes[-1] == "lm_studio"


def test_offline_a_cut_copy_is_no_copy(hub: Hub, tmp_path: Path) -> None:
    in_lm_studio(tmp_path, {**rehearsal(), GGUF: rehearsal()[GGUF][:-1000]})
    with pytest.raises(MscliError) as raised:
        fetch(offline=True)
    assert (raised.value.code, raised.value.details["cause"]) == (Code.WEIGHTS_MISSING, "offline")


def test_verification_hashes_the_copy_and_fetches_nothing_when_it_is_right(published: Hub, tmp_path: Path) -> None:
    in_lm_studio(tmp_path, {GGUF: WEIGHTS, PROJECTOR: PROJECTION})
    found = verify(PAIR, Heard(), timeouts=QUICK)
    assert (found.files, found.bad, found.absent) == (2, (), ())
    assert sent(published) == 0


def test_verification_replaces_a_bad_copy_by_the_cache_and_leaves_it_alone(
    published: Hub, tmp_path: Path, cache: Path
) -> None:
    wrong = bytes(len(WEIGHTS))
    folder = in_lm_studio(tmp_path, {GGUF: wrong, PROJECTOR: PROJECTION})
    found = verify(PAIR, Heard(), timeouts=QUICK)
    assert (found.bad, found.repaired) == ((GGUF,), True)
    assert whole(folder / GGUF, wrong), "a file of LM Studio's was changed"
    assert Path(fetch().model).is_relative_to(cache)
    assert whole(fetch().model, WEIGHTS)
