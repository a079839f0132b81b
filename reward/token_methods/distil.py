"""On-policy distillation beside the verifier: a teacher scores every token that the student wrote."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from reward.credit import step_to_token
from reward.dotted import resolve
from reward.rollouts import StepRollouts


def distil(
    rollouts: StepRollouts,
    *,
    teacher_weight: float = 1.0,
    clip: float = 5.0,
    method: str = "outcome",
    method_kwargs: dict[str, Any] | None = None,
) -> Float[Tensor, "B T"]:
    """A token is credited with how much more likely it is under the teacher than under the student that wrote it.

    Formula: A_t = A_method + λ·clip(d_t, ±c), d_t = log π_T(y_t) − log π(y_t) = the token score; λ = `teacher_weight`,
    c = `clip`, A_method the step's advantage by `method`

    Use when: there is a teacher with the student's tokenizer that solves what the student does not (`prm: teacher:…`).

    Known failure: the student comes to imitate the teacher, errors included, whatever the verifier says; without a clip
    one token that is impossible under the teacher outweighs the rest of the batch; a teacher that writes another format
    teaches that format.

    Baseline: unaffected. Nothing is subtracted from the teacher's term; A_method has the baseline of `method`.

    Source: on-policy distillation (tinker-cookbook, slime, NeMo-RL) [code]; λ = 1 there, the clip is this project's

    Raises:
        ValueError: there are no token scores, ``clip`` is not above 0, or ``method`` remembers earlier batches.
    """
    from reward.methods import METHODS  # not at the top: modules of methods may import each other

    if not clip > 0:
        raise ValueError(f"clip: got {clip}, expected a log-ratio above 0")
    inner = resolve(method, METHODS, "method")
    if hasattr(inner, "initial_memory"):
        raise ValueError(f"method: got {method!r}, which remembers earlier batches, expected one without a memory")
    scores = rollouts.required_token_scores
    advantages = inner(rollouts, **(method_kwargs or {}))
    base = step_to_token(advantages, rollouts.token_counts, scores.shape[1])
    return base + teacher_weight * torch.where(rollouts.token_mask, scores.clamp(-clip, clip), 0)


distil.per_token = True  # type: ignore[attr-defined]
