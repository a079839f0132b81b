"""Outcome only, which is GRPO without a process reward model."""

from jaxtyping import Float
from torch import Tensor

from reward.credit import outcome_advantages, over_steps
from reward.rollouts import StepRollouts


def outcome(rollouts: StepRollouts) -> Float[Tensor, "B K"]:
    """Every step takes the group-scaled outcome of its rollout.

    Formula: A = A_out = (o − mean_g o) / (std_g o + 1e-4)

    Use when: always, as the baseline that every other method has to beat.

    Known failure: there is no signal where all rollouts of a group are right or all wrong; a right answer reached by a
    wrong process is rewarded.

    Baseline: unaffected. One number per rollout.

    Source: GRPO, arXiv 2402.03300; equals TRL's GRPOTrainer (`scale_rewards="group"`) bit for bit
    """
    return over_steps(outcome_advantages(rollouts.outcome_rewards, rollouts.num_generations), rollouts.step_mask)
