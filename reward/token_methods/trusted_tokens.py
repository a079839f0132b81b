"""The outcome, plus the step's sum of token scores relative to the other rollouts, as far as it can be trusted."""

import torch
from jaxtyping import Float
from torch import Tensor

from reward.credit import positional_advantages, step_to_token, tokens_to_step
from reward.methods.outcome import outcome
from reward.rollouts import StepRollouts
from reward.trust import Trust, credit_correlation, initial_trust, trust_updated


def trusted_tokens(
    rollouts: StepRollouts,
    memory: Trust,
    *,
    process_weight: float = 0.5,
    slope: float = 3.0,
    caution: float = 1.0,
    window: float = 512.0,
    scale: float = 0.3,
) -> tuple[Float[Tensor, "B T"], Trust]:
    """A step is credited with its sum of token scores less the others' at the same step, times a measured trust.

    Formula: A_t = A_out + w·τ·c_k·(s/σ), v_k = Σ_{t in step k} token score, c_k = v_k − (mean of v at step k over the
    group's other rollouts), σ = the root mean square of c in this batch; τ as in `trusted`, for Σ_k c_k; w =
    `process_weight`, s = `scale`

    Use when: token scores of any scale are to be used like the step scores of a PRM: on a fixed scale, centred, and
    only as far as they correlate with the verified outcome.

    Known failure: as `trusted`; longer steps have larger sums.

    Baseline: unaffected. One term per step, less the mean of the other rollouts at the same step.

    Source: this project; the default of s is about the spread of a PRM's centred scores

    Raises:
        ValueError: there are no token scores, or a setting is below 0.
    """
    for name, value in (("slope", slope), ("caution", caution), ("scale", scale)):
        if value < 0:
            raise ValueError(f"{name}: got {value}, expected at least 0")
    scores = torch.where(rollouts.token_mask, rollouts.required_token_scores, 0)
    sums = tokens_to_step(scores, rollouts.token_counts)
    credit = positional_advantages(sums, rollouts.step_mask, rollouts.num_generations)
    spread = (credit.square().sum() / rollouts.step_mask.sum()).sqrt()
    credit = credit * (scale / spread.clamp(min=1e-8))
    memory = trust_updated(rollouts, memory, window=window, credit=credit.sum(1))
    rho, error = credit_correlation(memory)
    trust = (slope * (rho - caution * error)).clamp(0, 1)
    per_step = outcome(rollouts) + process_weight * trust * credit
    return step_to_token(per_step, rollouts.token_counts, scores.shape[1]), memory


trusted_tokens.initial_memory = initial_trust  # type: ignore[attr-defined]
trusted_tokens.per_token = True  # type: ignore[attr-defined]
trusted_tokens.measures_trust = True  # type: ignore[attr-defined]  # on rollouts that the scorer has not been trained on
