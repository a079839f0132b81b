"""VeriGate: the process reward model counts only in groups without a right answer."""

import torch
from jaxtyping import Float
from torch import Tensor

from reward.credit import discounted_returns, group_mean_baseline, group_normalized
from reward.methods.outcome import outcome
from reward.rollouts import StepRollouts
from reward.shaping import raw_scores


def verigate(rollouts: StepRollouts) -> Float[Tensor, "B K"]:
    """Mixed groups learn from the outcome, all-wrong groups from the scores, and all-right groups get 0.

    Formula: mixed group: A = A_out; all wrong: A_k = Σ_{j≥k} p_j, normalised over all steps of the group; all right: 0

    Use when: prompts are hard and many groups are all wrong.

    Known failure: in all-wrong groups the sum favours more steps.

    Baseline: own share. In groups without a right answer the mean over all steps of the group gives long rollouts more
    weight, and the return pays every further step.

    Source: VeriGate, arXiv 2605.30451 [2nd]
    """
    mask, group = rollouts.step_mask, rollouts.num_generations
    share = group_mean_baseline(rollouts.correct.float(), rollouts.scorable, group)[:, None]
    returns = discounted_returns(raw_scores(rollouts.step_scores, mask), mask)
    relative = group_normalized(returns, mask & rollouts.scorable[:, None], group)
    return torch.where(share == 0, relative, torch.where(share < 1, outcome(rollouts), 0))
