"""VinePPO: a step's advantage is the change of value, which Monte Carlo completions of the prefix estimate."""

import torch
from jaxtyping import Float
from torch import Tensor

from reward.credit import leave_one_out_baseline
from reward.rollouts import StepRollouts
from reward.shaping import last_steps, raw_scores


def vine(rollouts: StepRollouts) -> Float[Tensor, "B K"]:
    """A step is credited with the change in the chance of a right answer; the last step ends in the outcome itself.

    Formula: A_k = V_k − V_{k−1} for k < K, A_K = o − V_{K−1}; V_k = p_k, V_0 = LOO(o); Σ_k A_k = o − LOO(o)

    Use when: the scores are live Monte Carlo values of the policy that is trained (`prm: vine`), or estimate them well.

    Known failure: a score that judges the step instead of estimating a value makes its differences meaningless; with
    few completions per prefix the differences are mostly noise; a reward besides the verdict (a format reward) enters
    at the last step and in V_0 only, because the scores do not include it.

    Baseline: unaffected. V_{k−1} depends on what came before step k.

    Source: VinePPO, arXiv 2410.01679 [code]; V_0 from the group's other rollouts in place of further completions
    """
    mask, scorable = rollouts.step_mask, ~rollouts.outcome_rewards.isnan()
    outcomes = torch.where(scorable, rollouts.outcome_rewards.float(), 0)
    start = leave_one_out_baseline(rollouts.outcome_rewards, scorable, rollouts.num_generations)
    values = torch.where(last_steps(mask), outcomes[:, None], raw_scores(rollouts.step_scores, mask))
    before = torch.cat([start[:, None], values[:, :-1]], dim=1)
    return torch.where(mask & scorable[:, None], values - before, 0)
