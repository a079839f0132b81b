"""GTPO: the discounted return of the turns still to come, the outcome at the end."""

from jaxtyping import Float
from torch import Tensor

from reward.credit import discounted_returns, group_normalized, leave_one_out_returns
from reward.rollouts import StepRollouts
from reward.turn_rewards import turn_rewards_and_outcome

BASELINES = ("steps", "return")


def gtpo(
    rollouts: StepRollouts,
    *,
    gamma: float = 0.95,
    process_weight: float = 1.0,
    neutral: float = 0.0,
    baseline: str = "steps",
) -> Float[Tensor, "B K"]:
    """A step is credited with what comes after it, the sooner the more.

    Formula: A_k = (G_k − mean G) / (std G + 1e-4) over all steps of the group, G_k = Σ_{j≥k} γ^{j−k}·r_j,
    r_k = w·(p_k − ν)·1[k is scored] + o·1[k = K]; `baseline="return"`: A_k = G_k − LOO(G_k), a rollout that has ended
    counts with its o, not scaled; γ is per step; w = `process_weight`, ν = `neutral`

    Use when: turns are scored and early ones decide; a price per step or turn belongs into the scores, with ν = ½.

    Known failure: γ < 1 makes a later outcome worth less, so an answer at once is worth more than one after a
    call; with ν = 0 every further scored turn pays.

    Baseline: own share. The mean is over all steps of the group, so long rollouts weigh more in it; unaffected with
    `baseline="return"`.

    Source: GTPO, arXiv 2511.14846 [2nd]: a normalised discounted return of turns; γ and what it is normalised over are
    this project's choice

    Raises:
        ValueError: an unknown ``baseline``.
    """
    if baseline not in BASELINES:
        raise ValueError(f"baseline: got {baseline!r}, expected one of {', '.join(BASELINES)}")
    rewards, judged = turn_rewards_and_outcome(rollouts, process_weight=process_weight, neutral=neutral)
    if baseline == "return":
        outcomes, group = rollouts.outcome_rewards, rollouts.num_generations
        return leave_one_out_returns(rewards, judged, group, gamma=gamma, ended=outcomes)
    return group_normalized(discounted_returns(rewards, judged, gamma=gamma), judged, rollouts.num_generations)
