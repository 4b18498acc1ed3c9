"""Memory that our own instances hold or are about to take."""

from __future__ import annotations

from support.planning.planned import device, held, holder, on, plan, refusal

from mscli.planning.plan import GIB, Claim


def claim(where_index: int = 0, planned_gib: float = 15, pids: tuple[int, ...] = (), replaced: bool = False) -> Claim:
    return Claim("other", device(on("2x RTX 4090"), where_index).uuid, round(planned_gib * GIB), pids, replaced)


def test_a_starting_instance_s_memory_is_reserved() -> None:
    found = refusal("small-q4", "RTX 4090", None, claim())
    assert found.memory[0].free_bytes < 9 * GIB


def test_what_it_holds_already_is_not_reserved_twice() -> None:
    started = held(on("RTX 4090"), 0, holder(99, 4))
    assert plan("small-q4", started, None, claim(planned_gib=4, pids=(99,))).memory[0].free_bytes > 19 * GIB


def test_a_claimed_gpu_is_avoided() -> None:
    assert plan("small-q4", "2x RTX 4090", None, claim(0)).gpus == (1,)


def test_a_replaced_instance_gives_its_memory_back() -> None:
    full = held(on("RTX 4090"), 0, holder(99, 20))
    refusal("small-q4", full, None, claim(planned_gib=20, pids=(99,)))
    replaced = plan("small-q4", full, None, claim(planned_gib=20, pids=(99,), replaced=True))
    assert replaced.context == plan("small-q4", "RTX 4090").context


def test_holders_without_figures_count_as_the_claim_s() -> None:
    """WSL and containers name holders without bytes: what is in use and unexplained is our own instance's."""
    full = held(on("RTX 4090"), 0, holder(99, 20))
    hidden = held(full, 0, holder(99, None))
    assert device(hidden, 0).free_bytes == device(full, 0).free_bytes
    replaced = plan("small-q4", hidden, None, claim(planned_gib=20, pids=(99,), replaced=True))
    assert replaced.context > 30_000
