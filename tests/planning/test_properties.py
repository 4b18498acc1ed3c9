"""What holds for every machine, profile and overrides."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from support.planning.planned import catalog, device, facts, on, pair

from mscli.catalog.profile import Profile
from mscli.inventory.inventory import Inventory
from mscli.planning.devices import nvml_total, rooms
from mscli.planning.known import Known
from mscli.planning.make import make
from mscli.planning.memory import Configuration
from mscli.planning.plan import GIB, MIB, SAFE, Claim, NoFit, Overrides, Plan
from mscli.planning.request import KV_BY_ENGINE, loads, memory_of, resolve
from mscli.planning.search import margin
from mscli.planning.verdict import plan_once

settings.register_profile("planning", deadline=None)  # a loaded machine is no fault of a plan's
settings.load_profile("planning")
ON_GPU = sorted(name for name, profile in catalog().profiles.items() if profile.device == "gpu")
# One count of GPUs is compared with itself: with more memory a profile may need fewer GPUs, and then holds less.
CARDS = (
    "RTX 4090",
    "2x RTX 4090",
    "A6000",
    "2x RTX 5090",
    "RTX 4090 + RTX 3060",
    "H100",
    "4x L4",
    "RTX 4060 Ti",
    "GB10",
)
profiles = st.sampled_from(ON_GPU)
machines = st.sampled_from(CARDS)
bytes_of_memory = st.integers(0, 100 * GIB)
overrides = st.builds(
    Overrides,
    context=st.none() | st.integers(256, 131072),
    users=st.none() | st.integers(1, 16),
    images=st.sampled_from([None, 0]),
    prefer=st.sampled_from([None, "context", "speed"]),
    offload=st.booleans(),
)


def with_free(where: Inventory, free: tuple[int, ...]) -> Inventory:
    """The machine with at most these bytes free on its devices, in turn."""
    devices = [
        replace(item, free_bytes=None if item.total_bytes is None else min(size, item.total_bytes))
        for item, size in zip(where.devices, free * 8, strict=False)
    ]
    return replace(where, devices=tuple(devices))


def outcome(name: str, where: Inventory, overrides: Overrides) -> Plan | NoFit:
    """The verdict with the GPUs pinned."""
    pinned = replace(overrides, gpus=tuple(str(item.gpu) for item in where.devices))
    return plan_once(*pair(name), pinned, Known(where, (), facts()))


def context(found: Plan | NoFit) -> int:
    return found.context if isinstance(found, Plan) else 0


@given(profiles, machines, overrides, bytes_of_memory, bytes_of_memory, bytes_of_memory)
def test_more_free_memory_never_shortens_the_context(
    name: str, cards: str, overrides: Overrides, first: int, second: int, more: int
) -> None:
    less, greater = with_free(on(cards), (first, second)), with_free(on(cards), (first + more, second))
    assert context(outcome(name, less, overrides)) <= context(outcome(name, greater, overrides))


@given(profiles, machines, overrides, st.tuples(bytes_of_memory, bytes_of_memory))
def test_no_plan_exceeds_free_memory(name: str, cards: str, overrides: Overrides, free: tuple[int, int]) -> None:
    found = outcome(name, with_free(on(cards), free), overrides)
    if not isinstance(found, Plan):
        return
    for gpu in found.memory:
        assert gpu.needed_bytes <= gpu.free_bytes <= gpu.total_bytes
        assert 0 <= gpu.kv_spare_bytes <= gpu.margin_bytes
        parts = gpu.weights_bytes + gpu.projector_bytes + gpu.kv_bytes + gpu.compute_bytes + gpu.graphs_bytes
        assert gpu.free_bytes == parts + gpu.runtime_bytes + gpu.margin_bytes
        assert gpu.total_bytes == gpu.free_bytes + gpu.held_bytes


@given(profiles, machines, overrides, st.tuples(bytes_of_memory, bytes_of_memory))
def test_a_safe_plan_leaves_its_margin(name: str, cards: str, overrides: Overrides, free: tuple[int, int]) -> None:
    where = with_free(on(cards), free)
    found = outcome(name, where, overrides)
    if isinstance(found, Plan) and found.verdict == SAFE:
        by_uuid = {room.uuid: room for room in rooms(where)[0]}
        for gpu in found.memory:
            assert gpu.margin_bytes >= margin(SAFE, by_uuid[gpu.uuid])


@given(profiles, machines, overrides, st.tuples(bytes_of_memory, bytes_of_memory))
def test_the_missing_bytes_are_what_is_missing(
    name: str, cards: str, overrides: Overrides, free: tuple[int, int]
) -> None:
    where = with_free(on(cards), free)
    found = outcome(name, where, replace(overrides, offload=False))
    if not isinstance(found, NoFit) or not found.memory:
        return
    assert found.missing_bytes > 0
    assert "short" in found.reasons[0]
    enough = outcome(name, grown(where, found.missing_bytes), replace(overrides, offload=False))
    assert isinstance(enough, Plan), f"{found.reasons} but with that: {enough.reasons}"
    if found.missing_bytes > MIB:
        less = outcome(name, grown(where, found.missing_bytes - 2 * MIB), replace(overrides, offload=False))
        assert isinstance(less, NoFit), f"{found.reasons}, but less does: {less}"


def grown(where: Inventory, more: int) -> Inventory:
    """The machine with `more` bytes more free on every device, on bigger cards where it takes them."""
    free = {room.uuid: room.free_bytes + more for room in rooms(where)[0]}
    if any(gpu.unified_memory for gpu in where.gpus):
        size = max(free.values())
        ram = max(where.host.ram_total_bytes, nvml_total(size))
        return replace(where, host=replace(where.host, ram_total_bytes=ram, ram_available_bytes=size))
    devices = [
        replace(item, free_bytes=free[item.uuid], total_bytes=max(item.total_bytes or 0, nvml_total(free[item.uuid])))
        for item in where.devices
    ]
    return replace(where, devices=tuple(devices))


@given(profiles, st.integers(1, 131000), st.integers(0, 4096), st.integers(1, 8), st.sampled_from([1, 2]))
def test_a_longer_context_never_needs_less(name: str, short: int, more: int, users: int, gpus: int) -> None:
    profile, model = pair(name)
    devices = rooms(on(f"{gpus}x H200"))[0]
    engine = memory_of(profile.engine)
    for kind in KV_BY_ENGINE[profile.engine]:
        config = Configuration(model, model.variants[profile.variant], short, kind, users)
        longer = replace(config, context=short + more)
        total = sum(one.needed_bytes for one in engine.footprints(config, devices))
        assert sum(one.needed_bytes for one in engine.footprints(longer, devices)) >= total
        assert engine.host(longer, ()).needed_bytes >= engine.host(config, ()).needed_bytes


@given(st.sampled_from([name for name in ON_GPU if catalog().profiles[name].engine == "vllm"]), st.integers(1, 131072))
def test_tensor_parallel_halves_what_it_should(name: str, tokens: int) -> None:
    profile, model = pair(name)
    config = Configuration(model, model.variants[profile.variant], tokens, "f16")
    engine = memory_of("vllm")
    (one,) = engine.footprints(config, rooms(on("A100 40GB"))[0])
    two = engine.footprints(config, rooms(on("2x A100 40GB"))[0])
    assert len(set(two)) == 1
    assert two[0].kv_bytes * 2 == one.kv_bytes
    assert two[0].weights_bytes == -(-one.weights_bytes // 2)
    assert two[0].projector_bytes == one.projector_bytes


@given(profiles, machines, st.integers(1, 40 * GIB))
def test_a_claim_never_lengthens_the_context(name: str, cards: str, planned: int) -> None:
    where = on(cards)
    claim = Claim("other", device(where, 0).uuid, planned, ())
    pinned = Overrides(gpus=tuple(str(item.gpu) for item in where.devices))
    claimed = make(*pair(name), Known(where, [claim], facts()), pinned)
    assert context(claimed) <= context(make(*pair(name), Known(where, (), facts()), pinned))


@settings(max_examples=30)
@given(profiles, machines, overrides, st.tuples(bytes_of_memory, bytes_of_memory))
def test_the_nearest_flag_is_one_the_user_can_type(
    name: str, cards: str, overrides: Overrides, free: tuple[int, int]
) -> None:
    found = make(*pair(name), Known(with_free(on(cards), free), (), facts()), overrides)
    if isinstance(found, NoFit) and found.nearest:
        flag = found.nearest.split(" ")[0]
        assert flag in {"--ctx", "--kv", "--users", "--images", "--gpus", "--variant", "--engine", "--offload"}


@given(profiles)
def test_every_shipped_profile_can_be_resolved(name: str) -> None:
    profile: Profile = pair(name)[0]
    assert loads(profile.engine, pair(name)[1].variants[profile.variant])
    assert not hasattr(resolve(*pair(name), Overrides()), "nearest")
