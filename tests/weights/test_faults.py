"""What a network does to a pull: each fault ends with whole files, or with an error that says what to do."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
from support.hub import Hub
from support.hub.faults import API, CORRUPT, CUT, STALL, STATUS, WHOLE, WRONG_RANGE
from support.weights.pulls import GGUF, QUICK, REPOSITORY, Heard, content, pull, whole

from mscli.errors import Code, MscliError
from mscli.weights.fault import Timeouts

WEIGHTS = content(3_500_000)
ONE_CHUNK = 1 << 18


def failure(**more: Timeouts) -> MscliError:
    with pytest.raises(MscliError) as raised:
        pull(**more)
    return raised.value


@pytest.fixture
def published(hub: Hub) -> Hub:
    hub.add(REPOSITORY, {GGUF: WEIGHTS})
    return hub


def test_connection_that_is_cut_goes_on_where_it_was(published: Hub) -> None:
    for at in (100_000, 1_500_000, 1_700_000, 3_499_999):
        published.fault(CUT, GGUF, at=at)
    assert whole(pull().model, WEIGHTS)
    assert published.bytes_sent_twice(GGUF) == 0


def test_connection_that_stalls_is_opened_again_and_said_so(published: Hub) -> None:
    published.fault(STALL, GGUF, at=500_000)
    heard = Heard()
    assert whole(pull(listener=heard).model, WEIGHTS)
    assert heard.codes == ["stalled"]
    assert published.bytes_sent_twice(GGUF) == 0


def test_stall_for_ever_ends_with_an_error_and_keeps_the_rest(published: Hub) -> None:
    published.fault(STALL, GGUF, at=500_000, times=None)
    error = failure(timeouts=Timeouts(connect_s=2, stall_s=0.3, retry_s=1.5))
    assert (error.code, error.details["cause"]) == (Code.DOWNLOAD_FAILED, "stalled_download")
    published.faults.clear()
    heard = Heard()
    assert whole(pull(listener=heard).model, WEIGHTS)
    assert heard.codes == ["resumed"]
    assert published.bytes_sent_twice(GGUF) <= ONE_CHUNK


def test_corrupt_file_is_fetched_once_more(published: Hub) -> None:
    fine = content(30_000, 5)
    published.add(REPOSITORY, {GGUF: WEIGHTS, "mmproj.gguf": fine})
    published.fault(CORRUPT, GGUF, at=1_234_567)
    heard = Heard()
    assert whole(pull(projector="mmproj.gguf", listener=heard).model, WEIGHTS)
    assert heard.codes == ["corrupt"]
    assert published.sent_bytes(GGUF) == 2 * len(WEIGHTS)
    assert published.sent_bytes("mmproj.gguf") == len(fine), "a good file was fetched again because of a bad one"


def test_small_file_is_checked_by_its_git_blob_id(hub: Hub) -> None:
    hub.add(REPOSITORY, {GGUF: WEIGHTS, "config.json": b'{"layers": 40}'})
    hub.fault(CORRUPT, "config.json", at=3)
    heard = Heard()
    pull(GGUF, "config.json", listener=heard)
    assert heard.codes == ["corrupt"]


def test_bytes_that_stay_corrupt_are_not_kept(published: Hub) -> None:
    published.fault(CORRUPT, GGUF, at=77, times=None)
    error = failure()
    assert (error.code, error.details["cause"]) == (Code.DOWNLOAD_FAILED, "corrupt_download")
    assert "proxy" in error.hint
    published.faults.clear()
    assert whole(pull().model, WEIGHTS)


@pytest.mark.parametrize("kind", [WHOLE, WRONG_RANGE])
def test_other_bytes_than_those_asked_for_are_never_written(published: Hub, kind: str) -> None:
    published.fault(kind, GGUF, at=2_500_000)
    assert whole(pull().model, WEIGHTS)


@pytest.mark.parametrize(("where", "status"), [(API, 502), (GGUF, 500), (GGUF, 503)])
def test_trouble_of_the_hub_passes(published: Hub, where: str, status: int) -> None:
    published.fault(STATUS, where, status=status)
    assert whole(pull().model, WEIGHTS)


@pytest.mark.parametrize(("where", "header"), [(API, {"RateLimit": '"api";r=0;t=1'}), (GGUF, {"Retry-After": "1"})])
def test_rate_limit_is_waited_for_as_long_as_it_asks(published: Hub, where: str, header: dict[str, str]) -> None:
    published.fault(STATUS, where, status=429, headers=header)
    heard = Heard()
    assert whole(pull(listener=heard).model, WEIGHTS)
    assert heard.codes == ["rate_limit"]
    assert "1 s" in heard.notes[0].message


@pytest.mark.parametrize("where", [API, GGUF])
def test_rate_limit_that_asks_for_an_hour_ends_at_once(published: Hub, where: str) -> None:
    published.fault(STATUS, where, status=429, headers={"Retry-After": "3600"}, times=None)
    error = failure()
    assert (error.code, error.details["cause"]) == (Code.DOWNLOAD_FAILED, "hf_rate_limit")
    assert error.details["retry_after_s"] == 3600


@pytest.mark.parametrize(
    ("kind", "cause"), [(STATUS, "network_proxy"), (WHOLE, "network_proxy"), (WRONG_RANGE, "corrupt_download")]
)
def test_answer_that_stays_wrong_ends_soon(published: Hub, kind: str, cause: str) -> None:
    published.fault(kind, GGUF, at=2_500_000, status=403, times=None)
    assert failure(timeouts=Timeouts(retry_s=60)).details["cause"] == cause


def test_page_in_place_of_the_api_is_no_hub(published: Hub) -> None:
    published.fault(STATUS, API, status=200, times=None)
    error = failure()
    assert error.details["cause"] == "network_proxy"
    assert "not respond like a Hugging Face hub" in error.message


def test_hub_that_nobody_serves(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("HF_ENDPOINT", f"http://{address}")
    error = failure()
    assert (error.code, error.details["cause"]) == (Code.DOWNLOAD_FAILED, "network_proxy")
    assert address in error.message
    assert "HF_ENDPOINT" in error.hint


def refuse_gate(hub: Hub) -> None:
    hub.add(REPOSITORY, {GGUF: WEIGHTS}).accepted = set()


def refuse_private(hub: Hub) -> None:
    hub.add(REPOSITORY, {GGUF: WEIGHTS}).private = True


def refuse_nothing(hub: Hub) -> None:
    hub.add(REPOSITORY, {GGUF: WEIGHTS})


@pytest.mark.parametrize(
    ("arrange", "token", "cause", "said"),
    [
        (refuse_gate, None, "hf_gated", {"token": "missing", "page": f"https://huggingface.co/{REPOSITORY}"}),
        (refuse_gate, "hf_stranger", "hf_gated", {"token": "not_accepted"}),
        (refuse_gate, "hf_narrow", "hf_gated", {"token": "lacks_right"}),
        (refuse_gate, "hf_mistyped", "hf_gated", {"token": "invalid"}),
        (refuse_nothing, "hf_mistyped", "hf_gated", {"token": "invalid"}),
        (refuse_private, None, "model_not_found", {}),
        (lambda hub: None, None, "model_not_found", {}),
        (lambda hub: None, "hf_stranger", "model_not_found", {}),
    ],
)
def test_refusals_are_told_apart(
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
    arrange: Callable[[Hub], None],
    token: str | None,
    cause: str,
    said: dict[str, str],
) -> None:
    arrange(hub)
    hub.tokens |= {"hf_stranger": True, "hf_narrow": False}
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    error = failure()
    assert (error.code, error.details["cause"]) == (Code.DOWNLOAD_FAILED, cause)
    assert said.items() <= error.details.items(), error.details
    assert error.hint


def test_gate_that_was_accepted_opens(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(REPOSITORY, {GGUF: WEIGHTS}).accepted = {"hf_accepted"}
    hub.tokens["hf_accepted"] = True
    monkeypatch.setenv("HF_TOKEN", "hf_accepted")
    assert whole(pull(timeouts=QUICK).model, WEIGHTS)
