"""VPPO: a wrong rollout keeps part of the reward for the steps before its first error."""

import torch
from jaxtyping import Float
from torch import Tensor

from reward.credit import group_mean_baseline, over_steps, step_means
from reward.rollouts import StepRollouts


def vppo(rollouts: StepRollouts, *, threshold: float = 0.8, alpha: float = 0.5) -> Float[Tensor, "B K"]:
    """The PRM only locates the first error; the steps before it in a wrong rollout earn part of the outcome.

    Formula: A_k = a_k − mean_g (mean over tokens of a), without a std; correct: a = 1; incorrect: a = α before the
    first step with p < θ, 0 from it on (α throughout if there is none); θ = `threshold`, α = `alpha`

    Use when: the PRM finds first errors well (ProcessBench) though its scores are rough; published 4B avg@16:
    GRPO 33.7, mixed 31.8, VPPO 35.4.

    Known failure: where the PRM sees no error, the whole wrong rollout earns α.

    Baseline: unaffected. One fixed term, the group's mean of one number per rollout.

    Source: VPPO, arXiv 2601.18984 [2nd]
    """
    mask = rollouts.step_mask
    wrong = rollouts.steps_with_scores & (rollouts.step_scores < threshold)
    before_error = wrong.cumsum(1) == 0
    rewards = torch.where(rollouts.correct[:, None], 1.0, alpha * before_error)
    means = step_means(rewards, mask, rollouts.token_counts)
    baselines = group_mean_baseline(means, rollouts.scorable, rollouts.num_generations)
    judged = mask & rollouts.scorable[:, None]
    return torch.where(judged, rewards, 0) - over_steps(baselines, judged)
