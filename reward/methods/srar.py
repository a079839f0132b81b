"""SRaR: the rubric score of step k, compared with that of step k in the group's other rollouts."""

import torch
from jaxtyping import Float
from torch import Tensor

from reward.methods.outcome import outcome
from reward.rollouts import StepRollouts

SRAR_EPSILON = 1e-6  # from the authors' code: it is added to the std, and a std up to it counts as 0


def srar(rollouts: StepRollouts, *, process_weight: float = 1.0) -> Float[Tensor, "B K"]:
    """The outcome, plus each step's rubric score normalised over the rollouts that have one at the same position.

    Formula: A_k = A_out + w·(p_k − mean_k) / (std_k + 1e-6), mean_k and std_k over the group's rollouts whose step k is
    scored; the second term is 0 where the step is not scored, where no other one is, or where std_k ≤ 1e-6; there is no
    sum over later steps; w = `process_weight`

    Use when: there is a rubric for each problem (`--prm judge:MODEL`, form `rubric`): what to do, what to avoid.

    Known failure: step k of one rollout is compared with step k of another, whatever they are about, and the number of
    rollouts it is compared with depends on their lengths. In a group of two, any difference gives ±0.7, however small.

    Baseline: unaffected. No sum; step k is compared with the rollouts that have one, whatever this one writes later.

    Source: SRaR, arXiv 2605.17291 [code]. The rubric judge writes a delta d ∈ [−1, 1.8] as p = (d + 1) / 2.8, which the
    normalisation undoes; a delta of the whole solution counts at every step, while the authors normalise it separately
    """
    group, (batch, steps) = rollouts.num_generations, rollouts.step_scores.shape
    scored = rollouts.scored_steps.reshape(batch // group, group, steps)
    scores = torch.where(scored, rollouts.step_scores.reshape(scored.shape).float(), 0)
    count = scored.sum(1, keepdim=True)
    mean = scores.sum(1, keepdim=True) / count.clamp(min=1)
    deviations = torch.where(scored, scores - mean, 0)
    std = ((deviations**2).sum(1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
    told = scored & (std > SRAR_EPSILON)
    normalised = torch.where(told, deviations / (std + SRAR_EPSILON), 0).reshape(batch, steps)
    return outcome(rollouts) + process_weight * normalised
