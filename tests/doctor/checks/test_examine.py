"""Running checks: what one does must not hide what others find."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from mscli.cli.main import main
from mscli.doctor.checks.check import AREAS, Check, CheckContext, Finding, ok, one_line, shell, warn
from mscli.doctor.checks.run import checks, examine
from mscli.paths import places


@pytest.fixture
def ctx(tmp_path: Path) -> CheckContext:
    return CheckContext(places({"MSCLI_HOME": str(tmp_path)}), env={}, root=tmp_path)


def good(_: CheckContext) -> Iterator[Finding]:
    yield ok("all is well")


def test_a_check_that_raises_counts_as_crashed_and_the_others_are_shown(ctx: CheckContext) -> None:
    def broken(_: CheckContext) -> Iterator[Finding]:
        yield ok("this was seen before")
        raise RuntimeError("never expected")

    found = examine(ctx, (Check("host.broken", broken), Check("gpu.good", good)))
    assert [(each.id, each.status) for each in found] == [
        ("host.broken", "ok"),
        ("host.broken", "crashed"),
        ("gpu.good", "ok"),
    ]
    assert "never expected" in found[1].seen


def test_what_others_wrote_is_one_line_without_control_sequences(ctx: CheckContext) -> None:
    argv = "evil\x1b]52;c;cm0gLXJm\x07\x1b[2J\x1b[31m\n  \u2713 all is well\u202e\x9b1A [bold]x[/bold]"

    def others(_: CheckContext) -> Iterator[Finding]:
        yield warn(None, f"port 1 is in use by {argv}", f"Stop {argv}.", argv, command=f"kill {argv}")

    (found,) = examine(ctx, (Check("host.others", others),))
    shown = "evil   \u2713 all is well [bold]x[/bold]"
    assert found.seen == f"port 1 is in use by {shown}"
    assert (found.evidence, found.remedy, found.command) == ((shown,), f"Stop {shown}.", f"kill {shown}")


@pytest.mark.parametrize("pump", ["\x1b[", "\x1b]", "\x1b]x\x1b", "\x9b0", "\x1bP", "\x1b ", "\x9b0 "])
def test_control_sequences_without_end_are_read_in_linear_time(pump: str) -> None:
    took = []
    for size in (50_000, 400_000):
        begun = time.thread_time()
        one_line(pump * (size // len(pump)))
        took.append(time.thread_time() - begun)
    assert took[1] < 24 * max(took[0], 0.002)


def test_a_path_in_a_command_is_quoted() -> None:
    assert shell(Path("/hub/models--x;rm -rf ~/blobs")) == "'/hub/models--x;rm -rf ~/blobs'"
    assert shell(Path("/hub/plain")) == "/hub/plain"


def test_a_check_that_hangs_is_given_up_at_its_deadline(ctx: CheckContext) -> None:
    release = threading.Event()

    def hanging(_: CheckContext) -> Iterator[Finding]:
        release.wait(30)
        yield ok("too late")

    begun = time.monotonic()
    found = examine(ctx, (Check("host.hanging", hanging, deadline_s=0.2), Check("gpu.good", good)))
    release.set()
    assert [each.status for each in found] == ["crashed", "ok"]
    assert "0.2 s" in found[0].seen
    assert time.monotonic() - begun < 10


def test_two_modules_that_ask_for_the_same_word_get_each_their_own(ctx: CheckContext) -> None:
    modules = [ModuleType("one"), ModuleType("other")]
    for module in modules:
        exec("def look(ctx): return ctx.once('program', lambda: __name__)", module.__dict__)
    assert [module.look(ctx) for module in modules] == ["one", "other"]


def test_an_area_asked_for_by_name_is_given_more_time(ctx: CheckContext) -> None:
    def slow(seen: CheckContext) -> Iterator[Finding]:
        threading.Event().wait(0.2)
        yield ok("there it is")

    check = Check("host.slow", slow, deadline_s=0.05, thorough_s=30)
    asked = CheckContext(ctx.places, env={}, root=ctx.root, asked=frozenset({"host"}))
    assert [each.status for each in examine(asked, (check,))] == ["ok"]
    assert [each.status for each in examine(ctx, (check,))] == ["crashed"]


@pytest.mark.parametrize("check", checks(AREAS), ids=lambda check: check.id)
def test_every_check_of_an_area_asked_for_by_name_has_time_on_a_busy_machine(ctx: CheckContext, check: Check) -> None:
    asked = CheckContext(ctx.places, env={}, root=ctx.root, asked=frozenset({check.area}))

    assert check.timeout_s(asked) >= 10 > check.timeout_s(ctx)


def test_checks_run_side_by_side(ctx: CheckContext) -> None:
    both = threading.Barrier(2)

    def meets(_: CheckContext) -> Iterator[Finding]:
        both.wait(10)  # raises when the other one does not come
        yield ok("met")

    found = examine(ctx, (Check("host.a", meets, 20), Check("host.b", meets, 20)))
    assert [each.status for each in found] == ["ok", "ok"]


def test_the_listener_hears_every_finding(ctx: CheckContext) -> None:
    heard: list[Finding] = []
    found = examine(ctx, (Check("host.good", good), Check("gpu.good", good)), heard.append)
    assert sorted(each.id for each in heard) == sorted(each.id for each in found)


def test_what_several_checks_need_is_looked_at_once(ctx: CheckContext) -> None:
    looked = []

    def sees(seen: CheckContext) -> Iterator[Finding]:
        yield ok(str(seen.once("thing", lambda: looked.append(1))))

    examine(ctx, (Check("host.a", sees), Check("host.b", sees), Check("host.c", sees)))
    assert looked == [1]


def test_every_check_is_named_by_its_area_and_once() -> None:
    found = checks()
    names = [check.id for check in found]
    assert len(names) == len(set(names))
    assert {check.area for check in found} <= set(AREAS)


def test_an_unknown_area_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--only", "gpus"]) == 2
    assert "containers" in capsys.readouterr().err
