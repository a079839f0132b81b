"""The outcome plus the score of the step itself, as far as the scores have gone along with verified outcomes."""

from jaxtyping import Float
from torch import Tensor

from reward.methods.outcome import outcome
from reward.rollouts import StepRollouts
from reward.shaping import raw_scores
from reward.trust import Trust, credit_correlation, initial_trust, trust_updated


def trusted(
    rollouts: StepRollouts,
    memory: Trust,
    *,
    process_weight: float = 0.5,
    slope: float = 3.0,
    caution: float = 1.0,
    window: float = 512.0,
) -> tuple[Float[Tensor, "B K"], Trust]:
    """A step is credited with its own score, times a trust that the scores have to earn and can lose.

    Formula: A_k = A_out + w·τ·p_k; τ = min(1, s·max(0, ρ − z·se)), ρ = the correlation within groups of Σ_k c_k with
    the verified outcome, c_k = p_k − (mean of p at step k over the group's other rollouts), over the last verified
    rollouts of groups with right and wrong answers; w = `process_weight`, s = `slope`, z = `caution`, `window` rollouts

    Use when: starting out, and whenever nobody knows how good the PRM is.

    Known failure: a score that goes along with the outcome and still likes something useless is trusted until that
    something is common enough to spoil ρ; prompts with gold answers are needed to earn any trust.

    Source: this project; the form of `immediate`, with a weight in [0, w] in place of w
    """
    for name, value, least in (("slope", slope, 0.0), ("caution", caution, 0.0)):
        if value < least:
            raise ValueError(f"{name}: got {value}, expected at least {least:g}")
    memory = trust_updated(rollouts, memory, window=window)
    rho, error = credit_correlation(memory)
    trust = (slope * (rho - caution * error)).clamp(0, 1)
    scores = raw_scores(rollouts.step_scores, rollouts.step_mask)
    return outcome(rollouts) + process_weight * trust * scores, memory


trusted.initial_memory = initial_trust
