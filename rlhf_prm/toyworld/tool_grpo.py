"""GRPO in the tool world: the lean loop of ``quick_grpo`` with turns as steps and the tool's tokens masked out."""

import random
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from transformers import AutoModelForCausalLM, AutoTokenizer, get_scheduler, set_seed

from reward import StepRollouts, filled_scores, step_to_token
from rlhf_prm.rl.step_advantages import StepAdvantages
from rlhf_prm.toyworld.problems import ChainProblem
from rlhf_prm.toyworld.quick_grpo import Regime, policy_loss
from rlhf_prm.toyworld.tool_sampler import ToolSampler
from rlhf_prm.toyworld.tool_turns import ToolRollout, exact_turn_scores, verdict
from rlhf_prm.toyworld.tool_world import ToolWorld, ToolWorldSettings

SOURCES = ("none", "environment", "oracle")  # who scores turns


def tool_grpo(
    world: ToolWorld,
    scores: str,
    method: str,
    method_kwargs: dict[str, Any] | None = None,
    regime: Regime | None = None,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Train the world's policy and measure it on the held-out problems.

    Args:
        scores: who scores turns: "none", "environment" (the calculator, its calls alone), or "oracle" (every turn,
            exactly).
        method: its step advantages; a turn is a step.

    Returns:
        ``ToolWorld.evaluate`` after training, ``outcomes``: the mean outcome of every update's rollouts,
        ``generated_tokens`` (the policy's own), ``seconds`` of training, and what a method remembers.

    Raises:
        ValueError: an unknown source of scores.
    """
    if scores not in SOURCES:
        raise ValueError(f"scores: got {scores!r}, expected one of {', '.join(SOURCES)}")
    regime, settings = regime or Regime(), world.settings
    tokenizer = AutoTokenizer.from_pretrained(world.policy_path)
    policy = AutoModelForCausalLM.from_pretrained(world.policy_path, dtype=torch.float32)
    set_seed(seed)
    order = list(range(len(world.train_problems)))
    random.Random(seed).shuffle(order)
    sampler = ToolSampler(policy, tokenizer, max_new_tokens=settings.max_completion_length)
    advantages = StepAdvantages(method, method_kwargs or {})
    optimizer = torch.optim.AdamW(policy.parameters(), lr=regime.learning_rate, weight_decay=0.0)
    schedule = get_scheduler(regime.lr_scheduler_type, optimizer, regime.warmup_steps, regime.max_steps)
    tokens, outcomes, start = 0, [], time.perf_counter()
    for update in range(regime.max_steps):
        chosen = [order[(update * regime.prompts + i) % len(order)] for i in range(regime.prompts)]
        problems = [world.train_problems[index] for index in chosen for _ in range(regime.num_generations)]
        prompt_ids = tokenizer([world.train_problems[index].prompt for index in chosen]).input_ids
        environments = [settings.environment(p, "training", seed, update, i) for i, p in enumerate(problems)]
        sampled = sampler.rollouts(prompt_ids, regime.num_generations, environments, seed=seed * 1_000_003 + update)
        rollouts = turn_rollouts(settings, problems, sampled, scores, regime.num_generations)
        outcomes.append(float(rollouts.outcome_rewards.mean()))
        policy.train()
        policy_loss(
            policy,
            [ids for ids in prompt_ids for _ in range(regime.num_generations)],
            [one.ids for one in sampled],
            on_the_policys_tokens(advantages(rollouts, update), sampled),
            tokenizer.pad_token_id,
            [one.written for one in sampled],
        ).backward()
        policy.eval()
        clip_grad_norm_(policy.parameters(), regime.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        tokens += sum(sum(one.written) for one in sampled)
    seconds = round(time.perf_counter() - start, 1)
    memory = {name: float(value) for name, value in advantages.memory.items() if value.ndim == 0}
    measured = world.evaluate(policy, tokenizer)
    return {**measured, "outcomes": outcomes, "generated_tokens": tokens, "seconds": seconds, "memory": memory}


def turn_rollouts(
    settings: ToolWorldSettings,
    problems: Sequence[ChainProblem],
    rollouts: Sequence[ToolRollout],
    scores: str,
    num_generations: int,
) -> StepRollouts:
    """The turns of these rollouts as steps, with their scores, the states before them, outcomes and verdicts."""
    pairs = list(zip(problems, rollouts, strict=True))
    raw = [_scores(problem, rollout, scores) for problem, rollout in pairs]
    mask = _table([[True] * len(rollout.turns) for rollout in rollouts], False)
    filled, unscored = filled_scores(_table(raw, 0.0), mask, num_generations)
    names = [rollout.environment.state_keys()[: len(rollout.turns)] for rollout in rollouts]
    number = {name: index for index, name in enumerate(sorted({name for row in names for name in row}))}
    return StepRollouts(
        step_scores=filled,
        step_mask=mask,
        step_lengths=_table([rollout.turn_lengths for rollout in rollouts], 0),
        outcome_rewards=torch.tensor([settings.outcome(*pair) for pair in pairs]),
        num_generations=num_generations,
        verdicts=torch.tensor([verdict(*pair) for pair in pairs]),
        scored=mask & ~unscored,
        state_keys=_table([[number[name] for name in row] for row in names], -1),
    )


def on_the_policys_tokens(step_advantages: Tensor, rollouts: Sequence[ToolRollout]) -> Tensor:
    """(B, K) → (B, T): each of the policy's tokens takes its turn's advantage, the tool's take 0."""
    spread = torch.zeros(len(rollouts), max(len(one.ids) for one in rollouts))
    for row, one in enumerate(rollouts):
        lengths = torch.tensor([one.turn_lengths])
        own = step_to_token(step_advantages[row : row + 1, : len(one.turns)], lengths, sum(one.turn_lengths))
        spread[row, : len(one.ids)][torch.tensor(one.written)] = own[0]
    return spread


def _scores(problem: ChainProblem, rollout: ToolRollout, scores: str) -> list[float]:
    """One score per turn of the policy, NaN = the turn is not scored."""
    if scores == "oracle":
        return exact_turn_scores(problem, rollout)
    told = rollout.environment.turn_rewards() if scores == "environment" else []
    return [*told, *[float("nan")] * len(rollout.turns)][: len(rollout.turns)]


def _table(rows: Sequence[Sequence[Any]], padding: Any) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[padding] * (width - len(row))] for row in rows])
