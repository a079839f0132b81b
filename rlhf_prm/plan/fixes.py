"""Finds settings that make a run fit, those with the least effect first."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from rlhf_prm.plan.memory import RunPlan, fits, kv_cache_room, memory_by_part, peak_bytes


@dataclass(frozen=True)
class Change:
    """One setting of the run: how a person writes it, and the plan's field."""

    text: str
    field: str
    value: Any


def _vllm_share(plan: RunPlan) -> float:
    """The smallest ``vllm_gpu_memory_utilization``, in steps of 0.05, that holds the weights and 16 rollouts."""
    rollouts = min(16, plan.rollouts // plan.gpus)
    wanted = 2 * plan.policy.parameters + rollouts * plan.tokens * plan.policy.kv_bytes_per_token
    return math.ceil(20 * wanted / plan.gpu_bytes) / 20


def changes(plan: RunPlan) -> Iterator[Change]:
    """All possible changes that differ from the plan, from free to costly."""
    colocate, batch, scores = plan.vllm == "colocate", plan.per_device_train_batch_size, plan.prm is not None
    if colocate and not plan.vllm_enable_sleep_mode:
        yield Change("vllm_enable_sleep_mode: true", "vllm_enable_sleep_mode", True)
    if colocate and (share := _vllm_share(plan)) <= 0.9 and share != plan.vllm_gpu_memory_utilization:
        yield Change(f"vllm_gpu_memory_utilization: {share:.2f}", "vllm_gpu_memory_utilization", share)
    if not plan.gradient_checkpointing:
        yield Change("gradient_checkpointing: true", "gradient_checkpointing", True)
    if batch > 1:
        text = f"per_device_train_batch_size: 1 (and gradient_accumulation_steps × {batch})"
        yield Change(text, "per_device_train_batch_size", 1)
    for stage in range(max(2, plan.zero + 1), 4) if plan.gpus > 1 else ():
        yield Change(f"zero_stage: {stage}", "zero", stage)
    if scores and plan.prm_placement == "replicate":
        yield Change("prm_placement: offload", "prm_placement", "offload")
    if scores and plan.prm_placement in ("replicate", "offload") and plan.gpus > 1:
        yield Change("prm_placement: zero3", "prm_placement", "zero3")
    if plan.zero and not plan.offload_optimizer:
        yield Change("offload_optimizer_device: cpu", "offload_optimizer", True)
    if not plan.zero:
        yield Change("zero_stage: 2", "zero", 2)
    if scores and plan.prm_placement != "server":
        yield Change("prm_placement: server (on other GPUs)", "prm_placement", "server")
    if colocate:
        yield Change("vllm_mode: server (on other GPUs)", "vllm", "server")


def _overflow(plan: RunPlan) -> int:
    """Bytes above the limit in the largest phase; a cache without room for one rollout counts as a whole GPU."""
    return max(0, max(peak_bytes(plan).values()) - plan.gpu_bytes) + (0 if kv_cache_room(plan) else plan.gpu_bytes)


def _with(plan: RunPlan, taken: dict[str, Change]) -> RunPlan:
    return replace(plan, **{field: change.value for field, change in taken.items()})


def smallest_fix(plan: RunPlan) -> tuple[list[str], RunPlan] | None:
    """The settings to change and the plan that then fits; None if no change makes it fit.

    The first single change that is enough is taken. Otherwise changes are added in order while they lower the overflow,
    and unnecessary ones are dropped again.
    """
    if fits(plan):
        return [], plan
    for change in changes(plan):
        if fits(fixed := _with(plan, {change.field: change})):
            return [change.text], fixed
    taken: dict[str, Change] = {}
    while not fits(current := _with(plan, taken)):
        useful = (c for c in changes(current) if _overflow(_with(current, {c.field: c})) < _overflow(current))
        change = next(useful, None)
        if change is None:
            return None
        taken[change.field] = change
    for field in list(taken):
        fewer = {name: change for name, change in taken.items() if name != field}
        if fits(_with(plan, fewer)):
            taken = fewer
    return [change.text for change in taken.values()], _with(plan, taken)


def largest_part(plan: RunPlan) -> str:
    """The name of the part that takes the most memory."""
    parts = memory_by_part(plan)
    return max(parts, key=lambda name: parts[name][0])
