"""What a profile is changed by so that its engine starts on this machine.

It changes the profile and never the overrides: what the user typed goes first, so an adjustment cannot break
it. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from mscli.catalog.profile import ContextRange, OptionValue, Profile
from mscli.frozen import field, frozen, replace
from mscli.planning.devices import cuda_total
from mscli.planning.plan import TIGHT, Plan, tokens

UTILISATION = "gpu-memory-utilization"


@frozen
class Adjustment:
    """None and empty: as the profile has it.

    `context`: the most tokens per user. `kv_types`, `images` (the most per request) and `users`: in place of the
    profile's. `utilisation`: vLLM's share of the GPU, in place of the smaller one that the planner derived. `options`:
    in place of the profile's, False takes a flag away; the planner takes `gpu-memory-utilization` as the most. `env`:
    added.
    """

    context: int | None = None
    kv_types: tuple[str, ...] | None = None
    images: int | None = None
    users: int | None = None
    utilisation: float | None = None
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)

    def applied(self, profile: Profile) -> Profile:
        """The profile with these changes."""
        return replace(
            profile,
            context=_at_most(profile.context, self.context),
            kv_types=self.kv_types or profile.kv_types,
            images=profile.images if self.images is None else min(profile.images, self.images),
            users=profile.users if self.users is None else min(profile.users, self.users),
            options={**profile.options, **self.options},
            env={**profile.env, **self.env},
        )

    def settled(self, plan: Plan) -> Plan:
        """The plan of the changed profile with what only a plan can be told, and these changes among its steps."""
        if self.utilisation is not None and "gpu_memory_utilization" in plan.settings:
            most = float(self.options.get(UTILISATION, 1.0))
            plan = _with_utilisation(plan, min(self.utilisation, most))
        return replace(plan, steps=(*plan.steps, *(f"changed to start on this machine: {word}" for word in self.words)))

    def then(self, later: Adjustment) -> Adjustment:
        """This and a later one together; the later one's word counts where both have one."""
        return Adjustment(
            context=later.context or self.context,
            kv_types=later.kv_types or self.kv_types,
            images=self.images if later.images is None else later.images,
            users=later.users or self.users,
            utilisation=later.utilisation or self.utilisation,
            options={**self.options, **later.options},
            env={**self.env, **later.env},
        )

    @property
    def words(self) -> tuple[str, ...]:
        """Every change, for people."""
        found = []
        if self.context:
            found.append(f"a context of at most {tokens(self.context)}")
        if self.kv_types:
            found.append(f"{' or '.join(self.kv_types)} KV")
        if self.images is not None:
            found.append(f"at most {_count(self.images, 'image')} per request")
        if self.users:
            found.append(f"at most {_count(self.users, 'concurrent user')}")
        if self.utilisation:
            found.append(f"a GPU memory utilization of {self.utilisation}")
        flags = [_flag(key, value) for key, value in self.options.items()]
        return (*found, *flags, *(f"{name}={value}" for name, value in self.env.items()))


NOTHING = Adjustment()


def _at_most(overrides: ContextRange, most: int | None) -> ContextRange:
    if most is None:
        return overrides
    target = None if overrides.target is None else min(overrides.target, most)
    return ContextRange(min(overrides.floor, most), target, min(overrides.cap, most))


def _with_utilisation(plan: Plan, share: float) -> Plan:
    """What vLLM takes more with a larger share is KV cache."""
    more = share - float(plan.settings["gpu_memory_utilization"])
    if more <= 0:
        return plan
    memory = tuple(
        replace(gpu, kv_spare_bytes=gpu.kv_spare_bytes + int(more * cuda_total(gpu.total_bytes))) for gpu in plan.memory
    )
    return replace(plan, verdict=TIGHT, memory=memory, settings={**plan.settings, "gpu_memory_utilization": share})


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _flag(key: str, value: OptionValue) -> str:
    if value is False:
        return f"without --{key}"
    return f"--{key}" if value is True else f"--{key} {value}"
