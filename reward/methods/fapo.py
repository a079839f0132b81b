"""FAPO: a right answer by a wrong process is worth less than a right one, and still more than a wrong one."""

from jaxtyping import Float
from torch import Tensor

from reward.credit import outcome_advantages, over_steps
from reward.rollouts import StepRollouts


def fapo(rollouts: StepRollouts, *, penalty: float = 1.0, threshold: float = 0.5) -> Float[Tensor, "B K"]:
    """Flawed right answers help while most are wrong, and are pushed down once fully right ones prevail.

    Formula: A = (r − mean_g r) / (std_g r + 1e-4), r = o − (λ/2)·1[correct, and p_k ≤ θ at a scored step];
    λ = `penalty`, θ = `threshold`

    Use when: right answers come by wrong steps (`preflight` counts them), and a judge or PRM finds the first error.

    Known failure: the whole rollout is penalised, its right steps too; a judge that flags most right answers makes them
    worth nothing, and one vote of one judge is enough to do it.

    Baseline: unaffected. One number per rollout.

    Source: FAPO, arXiv 2510.22543 [code]; there r is 1, 1 − λ = 0 and −1, which the scaling makes the same
    """
    wrong = rollouts.judged_wrong(threshold).any(dim=1)
    flawed = rollouts.correct & wrong
    rewards = rollouts.outcome_rewards.float() - penalty / 2 * flawed.float()
    return over_steps(outcome_advantages(rewards, rollouts.num_generations), rollouts.step_mask)
