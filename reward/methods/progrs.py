"""PROGRS: the scores of wrong rollouts count only relative to each other."""

import torch
from jaxtyping import Float
from torch import Tensor

from reward.credit import discounted_returns, group_mean_baseline, group_normalized, over_steps
from reward.methods.outcome import outcome
from reward.rollouts import StepRollouts
from reward.shaping import raw_scores


def progrs(rollouts: StepRollouts, *, beta: float = 0.5) -> Float[Tensor, "B K"]:
    """The outcome plus a bonus whose mean over the wrong rollouts is 0: fluent wrong answers earn nothing on average.

    Formula: A_k = A_out + β·(Σ_{j≥k} b_j, normalised over all steps of the group), b = p for correct rollouts,
    p − (mean over all steps of the group's incorrect rollouts) for incorrect ones; β = `beta`

    Use when: the PRM scores fluent wrong answers high (26 % of them in PROF's count).

    Known failure: among correct rollouts the sum still favours more steps.

    Baseline: affected. In wrong rollouts the mean score is subtracted from every further step; in right ones every
    further step pays.

    Source: PROGRS, arXiv 2604.02341 [2nd]; the sum over the remaining steps is this project's reading, and the paper's
    quantile-regression PRM and coherence penalty are left out
    """
    mask, group = rollouts.step_mask, rollouts.num_generations
    wrong = mask & rollouts.incorrect[:, None]
    scores = raw_scores(rollouts.step_scores, mask)
    bonus = torch.where(wrong, scores - over_steps(group_mean_baseline(scores, wrong, group), mask), scores)
    judged = mask & rollouts.scorable[:, None]
    return outcome(rollouts) + beta * group_normalized(discounted_returns(bonus, mask), judged, group)
