"""What a start is told of the last one of its kind."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from mscli.instances.json_values import append_lines, load_lines
from mscli.lifecycle.learning import Eta, Forecast, Kind, Mark, Past
from mscli.paths import Places, places

KIND = Kind("vllm", "0.32.0", "small-bf16", "bf16", ("NVIDIA GeForce RTX 5090", "NVIDIA GeForce RTX 5090"))
PAST = Past(KIND, 63.0, (Mark("loading the weights", 20.0), Mark("capturing CUDA graphs", 60.0)))


class Heard:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.forecasts: list[Forecast | None] = []

    def forecast(self, forecast: Forecast | None) -> None:
        self.forecasts.append(forecast)

    @property
    def left_s(self) -> float | None:
        """What the last forecast says now, in whole seconds."""
        last = self.forecasts[-1]
        left = last.left_s() if last else None
        return None if left is None else round(left)


def home(tmp_path: Path) -> Places:
    return places({"MSCLI_HOME": str(tmp_path)})


def test_the_first_start_is_told_nothing() -> None:
    heard = Heard()
    Eta(KIND, None, heard).mark("loading the weights")
    assert heard.forecasts == []


def test_the_next_one_is_told_what_the_last_one_took() -> None:
    heard = Heard()
    Eta(KIND, PAST, heard)
    assert (heard.left_s, heard.forecasts[-1].last_s if heard.forecasts[-1] else None) == (63, 63.0)


def test_a_step_that_the_last_start_told_as_well_sets_the_clock() -> None:
    heard = Heard()
    eta = Eta(KIND, PAST, heard)
    eta.mark("capturing CUDA graphs")
    assert heard.left_s == 3
    eta.mark("something new")
    assert heard.left_s == 3


def test_a_start_that_takes_longer_is_told_nothing_false() -> None:
    assert Forecast(time.monotonic() - 1, 63.0).left_s() is None


def test_nothing_is_foreseen_of_what_is_ready() -> None:
    heard = Heard()
    Eta(KIND, PAST, heard).ready()
    assert heard.forecasts[-1] is None


def test_a_good_start_is_kept_with_its_steps(tmp_path: Path) -> None:
    eta = Eta(KIND, None, Heard())
    eta.mark("loading the weights")
    eta.ready()
    eta.keep(home(tmp_path))
    (kept,) = load_lines(home(tmp_path).starts, Past)
    assert (kept.kind, [mark.text for mark in kept.marks]) == (KIND, ["loading the weights"])


def test_a_start_that_failed_or_waited_for_a_download_teaches_nothing(tmp_path: Path) -> None:
    Eta(KIND, None, Heard()).keep(home(tmp_path))
    slow = Eta(KIND, None, Heard())
    slow.spoilt = True
    slow.ready()
    slow.keep(home(tmp_path))
    assert load_lines(home(tmp_path).starts, Past) == ()


def test_a_broken_line_costs_that_line_only(tmp_path: Path) -> None:
    path = home(tmp_path).starts
    append_lines(path, [PAST])
    with path.open("a") as file:
        file.write('{"kind": 3}\n{"cut of\n')
    append_lines(path, [replace(PAST, seconds=60.0)])
    assert [past.seconds for past in load_lines(path, Past)] == [63.0, 60.0]
