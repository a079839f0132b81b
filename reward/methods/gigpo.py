"""GiGPO: episodes are compared with episodes, and steps with the steps that began in the same state."""

import torch
from jaxtyping import Float
from torch import Tensor

from reward.credit import discounted_returns, over_steps, within_states
from reward.rollouts import StepRollouts
from reward.turn_rewards import turn_rewards_and_outcome

MODES = ("mean_norm", "mean_std_norm")


def gigpo(
    rollouts: StepRollouts,
    *,
    gamma: float = 1.0,
    state_weight: float = 1.0,
    mode: str = "mean_norm",
    process_weight: float = 0.0,
    neutral: float = 0.0,
) -> Float[Tensor, "B K"]:
    """The episode's advantage, plus the step's advantage among the group's steps that began in the same state.

    Formula: A_k = (R − mean R) + ω·(G_k − mean of G over the group's steps with the same `state_keys`), R = Σ_k r_k,
    G_k = Σ_{j≥k} γ^{j−k}·r_j, r_k = w·(p_k − ν)·1[k is scored] + o·1[k = K]; mean R is over all steps of the group; the
    second term is 0 where the state is unknown or no other step shares it;
    `mode="mean_std_norm"` divides each term by its std + 1e-6; ω = `state_weight`, w = `process_weight`, ν = `neutral`

    Use when: an environment, or a tree of rollouts, brings rollouts of a prompt into the same state again and again.

    Known failure: where states never repeat, as in plain text after the first step, it is outcome-only. Different
    states that look the same (a hidden clock) are compared as if they were one. With w > 0 and ν = 0 every scored turn
    pays.

    Baseline: own share. mean R is over steps, so a long rollout weighs more in it. A step's own return is part of the
    mean at its state, more than once where a rollout returns to the state.

    Source: GiGPO, arXiv 2505.10978 [code]; there a step that shares its state with none keeps its raw return, here it
    gets 0

    Raises:
        ValueError: no ``state_keys``, or an unknown ``mode``.
    """
    if mode not in MODES:
        raise ValueError(f"mode: got {mode!r}, expected one of {', '.join(MODES)}")
    states, group, scaled = rollouts.required_state_keys, rollouts.num_generations, mode == "mean_std_norm"
    rewards, judged = turn_rewards_and_outcome(rollouts, process_weight=process_weight, neutral=neutral)
    rewards = torch.where(judged, rewards, 0)
    totals = over_steps(rewards.sum(1), judged)
    # For the episode's term, all steps of the group share one state.
    episode = within_states(totals, judged, torch.zeros_like(states), group, scaled=scaled)
    returns = discounted_returns(rewards, judged, gamma=gamma)
    return episode + state_weight * within_states(returns, judged, states, group, scaled=scaled)
