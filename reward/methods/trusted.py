"""The outcome, less what steps score below a threshold, weighted by how far the scores can be trusted."""

from jaxtyping import Float
from torch import Tensor

from reward.approval import Approval, approval_lift, approval_updated, initial_approval
from reward.credit import group_mean_baseline, over_steps
from reward.methods.outcome import outcome
from reward.rollouts import StepRollouts
from reward.shaping import clip_shaping


def trusted(
    rollouts: StepRollouts,
    memory: Approval,
    *,
    process_weight: float = 1.0,
    threshold: float = 0.5,
    slope: float = 4.0,
    caution: float = 1.0,
    window: float = 512.0,
) -> tuple[Float[Tensor, "B K"], Approval]:
    """Only scores below a threshold count, as in `clip_delta`, times a trust that is measured while the policy trains.

    Formula: A_k = A_out + w·τ·(c_k − mean of c over these steps of the group), c_k = min(p_k − η, 0), from a rollout's
    first scored step on, and A_out before it;
    τ = min(1, s·max(0, lift)), lift = (q − z·se − b) / (1 − b), b = the share of right rollouts, q ± se = that among
    rollouts with all p_k > η, over about the last `window` verified rollouts; w = `process_weight`, η = `threshold`,
    s = `slope`, z = `caution`

    Use when: the quality of the PRM is unknown: a PRM whose approval says nothing about the answer gets no weight.

    Known failure: trust is measured on whole rollouts of the present policy. A step that is right but useless, or one
    that the PRM always misjudges, is not noticed until it costs answers; with few verified prompts such errors win. A
    PRM with no score above η approves nothing and is never trusted: calibrate it. A policy that is never right gives
    the PRM no trust: begin its training with another method.

    Baseline: own share. One term per step; the mean over all steps of the group gives long rollouts more weight.

    Source: this project; the credit is that of Gao et al., arXiv 2410.15115 [mem]
    """
    for name, value in (("slope", slope), ("caution", caution)):
        if value < 0:
            raise ValueError(f"{name}: got {value}, expected at least 0")
    memory = approval_updated(rollouts, memory, threshold=threshold, window=window)
    trust = (slope * approval_lift(memory, caution=caution)).clamp(0, 1)
    mask = rollouts.steps_with_scores
    clipped = clip_shaping(rollouts.step_scores, mask, threshold=threshold)
    credit = clipped - over_steps(group_mean_baseline(clipped, mask, rollouts.num_generations), mask)
    return outcome(rollouts) + process_weight * trust * credit, memory


trusted.initial_memory = initial_approval  # type: ignore[attr-defined]  # this attribute marks a method with a memory
trusted.measures_trust = True  # type: ignore[attr-defined]  # on rollouts that the scorer has not been trained on
