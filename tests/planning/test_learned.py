"""Good starts correct the next plan."""

from __future__ import annotations

from support.planning.planned import plan

from mscli.planning.known import Observation, correction_bytes, history, observe
from mscli.planning.plan import GIB, Plan

VERSION = "0.30.8"


def start(found: Plan, more: int) -> Observation:
    """A start that took `more` bytes beyond the plan."""
    memory = found.memory[0]
    return observe(found, memory, VERSION, memory.needed_bytes + more)


def replan(*seen: Observation) -> Plan:
    return plan("small-q4", "RTX 4090", None, versions={"ollama": VERSION}, observations=seen)


def test_what_was_taken_beyond_the_plan_shortens_the_next() -> None:
    first = replan()
    second = replan(start(first, GIB))
    assert second.memory[0].correction_bytes == GIB
    assert second.context < first.context
    assert second.memory[0].margin_bytes >= first.memory[0].margin_bytes - 256 * 163840


def test_learning_settles() -> None:
    """The correction is taken out of the prediction before it is compared: it stays the same."""
    first = replan()
    seen = [start(first, GIB)]
    for _ in range(4):
        again = replan(*seen)
        seen.append(start(again, 0))
    assert correction_bytes(seen, first.memory[0].name, "ollama", VERSION, "small-q4") == GIB


def test_kv_figures_of_the_log_are_not_charged_to_the_rest() -> None:
    found = plan("small-bf16", "H100")
    memory = found.memory[0]
    pool = memory.kv_bytes + memory.kv_spare_bytes
    seen = observe(found, memory, None, memory.needed_bytes, pool - GIB)
    assert seen.observed_bytes - seen.predicted_bytes == GIB


def test_other_cards_engines_versions_and_profiles_teach_nothing() -> None:
    name = "NVIDIA GeForce RTX 4090"
    seen = [Observation(name, "ollama", VERSION, "small-q4", 0, GIB)]
    assert correction_bytes(seen, name, "ollama", VERSION, "small-q4") == GIB
    assert correction_bytes(seen, "NVIDIA L4", "ollama", VERSION, "small-q4") == 0
    assert correction_bytes(seen, name, "vllm", VERSION, "small-q4") == 0
    assert correction_bytes(seen, name, "ollama", "0.31.0", "small-q4") == 0
    assert correction_bytes(seen, name, "ollama", VERSION, "small-q8") == 0


def test_one_odd_start_does_not_bend_the_plan() -> None:
    first = replan()
    seen = [start(first, 0), start(first, 0), start(first, 30 * GIB)]
    assert replan(*seen).context == first.context


def test_history_shows_both_figures() -> None:
    first = replan()
    seen = (start(first, GIB),)
    (line,) = history(seen, replan(*seen), VERSION)
    assert "predicted" in line
    assert "observed" in line
    assert "+1.0 GiB" in line
