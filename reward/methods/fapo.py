"""FAPO: a right answer reached by a wrong process is worth less than a sound one, but more than a wrong answer."""

from jaxtyping import Float
from torch import Tensor

from reward.credit import outcome_advantages, over_steps
from reward.rollouts import StepRollouts


def fapo(rollouts: StepRollouts, *, penalty: float = 1.0, threshold: float = 0.5) -> Float[Tensor, "B K"]:
    """Flawed right answers are reinforced while most answers are wrong, and discouraged once sound ones prevail.

    Formula: A = (r − mean_g r) / (std_g r + 1e-4), r = o − (λ/2)·1[correct, and p_k ≤ θ at a scored step];
    λ = `penalty`, θ = `threshold`

    Use when: right answers are reached by wrong steps (`preflight` counts them), and a judge or PRM finds such steps.

    Known failure: the whole rollout is penalised, its right steps too. A judge that flags most right answers makes them
    worth nothing, and a single vote of a single judge is enough.

    Baseline: unaffected. One number per rollout.

    Source: FAPO, arXiv 2510.22543 [code]; the authors pay 1, 1 − λ = 0 and −1, which is the same after scaling
    """
    wrong = rollouts.judged_wrong(threshold).any(dim=1)
    flawed = rollouts.correct & wrong
    rewards = rollouts.outcome_rewards.float() - penalty / 2 * flawed.float()
    return over_steps(outcome_advantages(rewards, rollouts.num_generations), rollouts.step_mask)
