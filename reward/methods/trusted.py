"""The outcome plus what a step scores above that step of the other rollouts, as far as scores can be trusted."""

from jaxtyping import Float
from torch import Tensor

from reward.credit import positional_advantages
from reward.methods.outcome import outcome
from reward.rollouts import StepRollouts
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
    """A step is credited with its score against the others' at that place, times a trust the scores earn and can lose.

    Formula: A_k = A_out + w·τ·c_k, c_k = p_k − (mean of p at step k over the group's other rollouts; none: c_k = 0);
    τ = min(1, s·max(0, ρ − z·se)), ρ = the correlation within groups of Σ_k c_k with the verified outcome, over the
    last verified rollouts of groups with right and wrong answers; w = `process_weight`, s = `slope`, z = `caution`,
    `window` rollouts

    Use when: nobody knows how good the PRM is: a PRM that says nothing about the outcome gets no weight.

    Known failure: ρ compares rollouts of the present policy. A line about which the PRM is always mistaken looks alike
    in all of them and is not seen; with few verified prompts such errors win. A policy that is never right earns the
    PRM no trust: it needs another method for its start.

    Source: this project
    """
    for name, value in (("slope", slope), ("caution", caution)):
        if value < 0:
            raise ValueError(f"{name}: got {value}, expected at least 0")
    memory = trust_updated(rollouts, memory, window=window)
    rho, error = credit_correlation(memory)
    trust = (slope * (rho - caution * error)).clamp(0, 1)
    credit = positional_advantages(rollouts.step_scores, rollouts.step_mask, rollouts.num_generations)
    return outcome(rollouts) + process_weight * trust * credit, memory


trusted.initial_memory = initial_trust  # type: ignore[attr-defined]  # how a method says that it remembers
