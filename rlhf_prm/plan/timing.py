"""Seconds of one update, by part, from operations and bandwidths: an estimate with its assumptions stated."""

import math
from dataclasses import dataclass

from rlhf_prm.plan.memory import GB, RunPlan, kv_cache_room

REFRESH_ROWS, REFRESH_EVERY = 60 * 64, 20  # passes over a rollout in a refresh, updates between two: its defaults


@dataclass(frozen=True)
class Hardware:
    """Peak numbers of one GPU (dense bf16), its link to the other GPUs of the node, and a node's network per GPU."""

    memory_bytes: int
    flops: float
    memory_bandwidth: float
    link_bandwidth: float
    network_bandwidth: float = 50e9  # 400 Gb/s per GPU
    host_bandwidth: float = 25e9  # pinned memory over PCIe 4 ×16


# Vendors' data sheets: dense bf16, HBM, and one direction of NVLink (PCIe for the cards without).
GPUS = {
    "h200": Hardware(141 * GB, 989e12, 4.8e12, 450e9, host_bandwidth=50e9),
    "h100": Hardware(80 * GB, 989e12, 3.35e12, 450e9, host_bandwidth=50e9),
    "a100-80": Hardware(80 * GB, 312e12, 2.0e12, 300e9),
    "a100-40": Hardware(40 * GB, 312e12, 1.55e12, 300e9),
    "l40s": Hardware(48 * GB, 362e12, 0.86e12, 25e9),
    "rtx4090": Hardware(24 * GB, 165e12, 1.0e12, 25e9),
}


@dataclass(frozen=True)
class Efficiency:
    """Shares of the peaks that well-tuned code reaches; change them if you have measured yours."""

    training: float = 0.40
    scoring: float = 0.50
    decoding: float = 0.70  # of memory bandwidth
    links: float = 0.70


def generation_seconds(plan: RunPlan, gpu: Hardware, share: Efficiency) -> float:
    """Prefill, then one step per token: each reads the weights once and the cache of every running rollout.

    Rollouts that do not fit in the cache at one time run in waves. A step takes the larger of its reading and its
    arithmetic. All completions are taken to have the mean length; a long tail makes real runs slower.
    """
    if plan.task == "prm":
        return 0.0
    policy, local = plan.policy, plan.rollouts // plan.gpus
    running = max(1, kv_cache_room(plan))
    waves = math.ceil(local / running)
    running = math.ceil(local / waves)
    cache = running * (plan.prompt_tokens + plan.completion_tokens / 2) * policy.kv_bytes_per_token
    read = (2 * policy.parameters + cache) / (gpu.memory_bandwidth * share.decoding)
    per_token = policy.forward_flops_per_token + policy.attention_flops_per_token(plan.tokens)
    arithmetic = running * per_token / (gpu.flops * share.scoring)
    prefill = local * plan.prompt_tokens * policy.forward_flops_per_token / (gpu.flops * share.scoring)
    return prefill + waves * plan.completion_tokens * max(read, arithmetic)


def scoring_seconds(plan: RunPlan, gpu: Hardware, share: Efficiency) -> float:
    """One forward of the PRM over every rollout; ``offload`` also moves its weights to the GPU and back.

    A frozen language model is compared with the policy: one forward more, of the policy. An implicit PRM has its
    reference's forward, its own, and the three passes of a training step.
    """
    if plan.prm is None or (plan.prm_placement == "server" and not plan.asynchronous):
        return 0.0
    tokens, longest = plan.rollouts // plan.gpus * plan.windowed_tokens, plan.prm_context or plan.read_tokens
    longer = plan.prm.attention_flops_per_token(min(longest, plan.read_tokens))
    moved = 2 * 2 * plan.scorer_parameters / gpu.host_bandwidth if plan.prm_placement == "offload" else 0.0
    forward = plan.prm.forward_flops_per_token + longer
    if plan.scorer == "prm":
        per_token = 2 * plan.prm.layers * plan.prm.layer_parameters + longer
    elif plan.scorer == "frozen":
        per_token = forward + _forward_flops(plan)
    else:
        learning = 3 * forward * tokens / (gpu.flops * share.training)
        return 2 * forward * tokens / (gpu.flops * share.scoring) + learning + moved
    return per_token * tokens / (gpu.flops * share.scoring) + moved


def _forward_flops(plan: RunPlan) -> float:
    """FLOPs of the policy's forward, per token of a rollout, attention included."""
    return plan.policy.forward_flops_per_token + plan.policy.attention_flops_per_token(plan.tokens)


def refresh_seconds(plan: RunPlan, gpu: Hardware, share: Efficiency) -> float:
    """The PRM's training passes over ``REFRESH_ROWS`` rollouts every ``REFRESH_EVERY`` updates, for one update."""
    if plan.prm is None or not plan.prm_refresh:
        return 0.0
    per_token = 2 * plan.prm.layers * plan.prm.layer_parameters + plan.prm.attention_flops_per_token(plan.read_tokens)
    tokens = REFRESH_ROWS / REFRESH_EVERY * plan.read_tokens / plan.gpus
    return 3 * per_token * tokens / (gpu.flops * share.training)


def training_seconds(plan: RunPlan, gpu: Hardware, share: Efficiency) -> float:
    """Forward and backward are three forwards, four with gradient checkpointing; the critic's trunk takes the same."""
    tokens = plan.rollouts // plan.gpus * plan.tokens
    passes = (4 if plan.gradient_checkpointing else 3) * plan.num_iterations
    models = 2 if plan.critic == "own" else 1
    output = 2 * plan.policy.embedding_parameters if plan.task == "prm" else 0  # a PRM has no output matrix
    return models * passes * tokens * (_forward_flops(plan) - output) / (gpu.flops * share.training)


def old_policy_seconds(plan: RunPlan, gpu: Hardware, share: Efficiency) -> float:
    """No-gradient forwards before training: old log-probabilities (vLLM, PPO, re-used rollouts), values, reference."""
    if plan.task == "prm":
        return 0.0
    old = plan.vllm != "none" or plan.critic != "none" or plan.num_iterations > 1
    forwards = int(old) + int(plan.critic == "own") + int(plan.reference)
    tokens = plan.rollouts // plan.gpus * plan.tokens
    return forwards * tokens * _forward_flops(plan) / (gpu.flops * share.scoring)


def communication_seconds(plan: RunPlan, gpu: Hardware, share: Efficiency) -> float:
    """Seconds of transfers through the slowest link, without overlap with arithmetic: an upper bound.

    DDP all-reduces float32 gradients once per update; ZeRO-1 and 2 reduce gradients and gather weights in bf16; ZeRO-3
    gathers the weights for each forward and each backward and reduces the gradients of each micro-batch.
    """
    if plan.gpus == 1:
        return 0.0
    link = gpu.link_bandwidth if plan.nodes == 1 else min(gpu.link_bandwidth, gpu.network_bandwidth)
    weights = plan.trained_parameters * (plan.gpus - 1) / plan.gpus
    updates = plan.num_iterations
    if plan.zero == 3:
        volume = 3 * 2 * weights * plan.micro_batches * updates
    else:
        volume = (8 if plan.zero == 0 else 4) * weights * updates
    return volume / (link * share.links)


def weight_sync_seconds(plan: RunPlan, gpu: Hardware, share: Efficiency) -> float:
    """The new weights on their way to vLLM: a copy in GPU memory when colocated (gathered first under ZeRO-3)."""
    if plan.task == "prm":
        return 0.0
    weights = 2 * plan.policy.parameters
    link = gpu.link_bandwidth if plan.nodes == 1 else min(gpu.link_bandwidth, gpu.network_bandwidth)
    gathered = weights / (link * share.links) if plan.zero == 3 and plan.gpus > 1 else 0.0
    if plan.vllm == "colocate":
        return gathered + 2 * weights / gpu.memory_bandwidth
    return gathered + weights / (gpu.network_bandwidth * share.links) if plan.vllm == "server" else 0.0


def seconds_by_part(plan: RunPlan, gpu: Hardware, share: Efficiency | None = None) -> dict[str, float]:
    """Part → seconds per update; the verifier runs behind the PRM and is not counted."""
    share = share or Efficiency()
    parts = {
        "generate": generation_seconds(plan, gpu, share),
        "PRM": scoring_seconds(plan, gpu, share),
        "PRM refresh": refresh_seconds(plan, gpu, share),
        "old policy, values, reference": old_policy_seconds(plan, gpu, share),
        "train": training_seconds(plan, gpu, share),
        "communicate": communication_seconds(plan, gpu, share),
        "sync weights": weight_sync_seconds(plan, gpu, share),
    }
    return {name: seconds for name, seconds in parts.items() if seconds}


BESIDE_TRAINING = ("generate", "PRM")  # the parts that an asynchronous run does while it trains


def update_seconds(plan: RunPlan, seconds: dict[str, float]) -> float:
    """Seconds of a whole update: the sum of its parts; if it is asynchronous, the longer of the two sides."""
    beside = sum(seconds.get(name, 0.0) for name in BESIDE_TRAINING)
    training = sum(seconds.values()) - beside
    return max(beside, training) if plan.asynchronous else beside + training


def judge_tokens(plan: RunPlan) -> tuple[int, int]:
    """(read, written) by a judge for one update; (0, 0) without one."""
    if not plan.judge_tokens:
        return 0, 0
    return round(plan.rollouts * plan.read_tokens), plan.rollouts * plan.judge_tokens
