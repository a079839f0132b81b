"""PAPO: process quality is compared among right answers only."""

from jaxtyping import Float
from torch import Tensor

from reward.credit import group_normalized, over_steps, step_means
from reward.methods.outcome import outcome
from reward.rollouts import StepRollouts


def papo(rollouts: StepRollouts, *, beta: float = 0.5) -> Float[Tensor, "B K"]:
    """The outcome, plus the mean score normalised among the group's correct rollouts.

    Formula: A = A_out + β·A_proc, A_proc = (m − mean m) / (std m + 1e-4) over the group's correct rollouts, m = mean_k
    p_k over the scored steps; 0 for the rest; β = `beta`

    Use when: most groups have several right answers and the way to them matters. With a judge's form `grades`, m is its
    mark for the whole process under a rubric, which is the paper's own form.

    Known failure: it adds nothing where fewer than two answers are right; with β near 1 a right answer can be
    discouraged.

    Baseline: unaffected. One number per rollout.

    Source: PAPO, arXiv 2603.26535 [2nd]
    """
    scored = rollouts.scored_steps
    means = step_means(rollouts.step_scores, scored)
    quality = group_normalized(means, rollouts.correct & scored.any(dim=1), rollouts.num_generations)
    return outcome(rollouts) + beta * over_steps(quality, rollouts.step_mask)
