"""GTPO: a step's advantage is its normalised discounted return of turn rewards, with the outcome at the last step."""

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
    """A step is credited with the rewards that follow it; near ones count more than far ones.

    Formula: A_k = (G_k − mean G) / (std G + 1e-4) over all steps of the group, G_k = Σ_{j≥k} γ^{j−k}·r_j,
    r_k = w·(p_k − ν)·1[k is scored] + o·1[k = K]; `baseline="return"`: A_k = G_k − LOO(G_k), where a rollout that has
    ended counts with its o, without scaling; γ is per step; w = `process_weight`, ν = `neutral`

    Use when: turns are scored and early ones decide; put a cost per step or turn into the scores, with ν = ½.

    Known failure: γ < 1 makes a later outcome worth less, so answering at once is worth more than answering after a
    tool call; with ν = 0 every further scored turn pays.

    Baseline: own share. The mean is over all steps of the group, so long rollouts weigh more in it; unaffected with
    `baseline="return"`.

    Source: GTPO, arXiv 2511.14846 [2nd]: a normalised discounted return of turns; the value of γ and the set of steps
    it is normalised over are this project's choice

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
