"""Losses of process reward models: pure tensors, one value per step (B, K), True in the mask = a real step.

Letters: B = rollouts, K = most steps of any rollout. Logits have two columns: 0 = the step is wrong, 1 = it is right.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

NOTHING = -1e9  # stands for −∞, whose sums have NaN gradients: far below any logit, and e^−1e9 is 0 in fp32


def hard_cross_entropy(
    logits: Float[Tensor, "B K 2"], labels: Bool[Tensor, "B K"], step_mask: Bool[Tensor, "B K"]
) -> Float[Tensor, "B K"]:
    """−log softmax(logits)[label] per step, 0 where masked (arXiv 2501.07301, hard labels)."""
    per_step = functional.cross_entropy(logits.float().transpose(1, 2), labels.long(), reduction="none")
    return torch.where(step_mask, per_step, 0.0)


def soft_mean_squared_error(
    logits: Float[Tensor, "B K 2"], soft_labels: Float[Tensor, "B K"], step_mask: Bool[Tensor, "B K"]
) -> Float[Tensor, "B K"]:
    """(p − soft label)² per step with p = softmax(logits)[1], 0 where masked (arXiv 2501.07301, soft labels)."""
    error = logits.float().softmax(-1)[..., 1] - soft_labels.float()
    return torch.where(step_mask, error, 0.0).square()


def step_values(logits: Float[Tensor, "B K 2"]) -> Float[Tensor, "B K"]:
    """Q = log-odds that the step is right, so that σ(Q) is the step score that every reader of the model sees."""
    return logits[..., 1].float() - logits[..., 0].float()


def pqm_ranking(
    values: Float[Tensor, "B K"], labels: Bool[Tensor, "B K"], step_mask: Bool[Tensor, "B K"], *, zeta: float = 4.0
) -> Float[Tensor, " B"]:
    """Ranking loss over the steps' Q-values, one value per rollout (PQM, arXiv 2410.11287, as in its authors' code).

    With C the right steps in their order, W the wrong ones, N = Σ_{w∈W} e^{Q_w + ζ}, and h = 1 if W is not empty, else
    0, the terms are those of a virtual first step of value 0, counted only where h = 1, and of each right step::

        h·log(1 + N) − Σ_t log[ e^{Q_ct} / (1 + Σ_{s≤t} e^{Q_cs} + N) ],     divided by |C| + h

    Each right step must outrank the virtual one, the right ones before it and, by the margin ζ, every wrong one. So a
    rollout of one right step has the loss −log σ(Q), and every rollout with a step has a gradient. A batch's loss is
    the plain mean over rollouts.
    """
    right, wrong = step_mask & labels, step_mask & ~labels
    has_wrong = wrong.any(1, keepdim=True)
    virtual = torch.zeros_like(values[:, :1], dtype=torch.float32)
    ladder = torch.cat([virtual, torch.where(right, values.float(), NOTHING)], dim=1)  # (B, K+1)
    wrong_mass = torch.where(wrong, values.float() + zeta, NOTHING).logsumexp(1, keepdim=True)
    log_denominator = torch.logaddexp(ladder.logcumsumexp(1), wrong_mass)
    counted = torch.cat([has_wrong, right], dim=1)
    terms = torch.where(counted, log_denominator - ladder, 0.0)
    return terms.sum(1) / counted.sum(1).clamp(min=1)


def pcrm_tokenwise(
    chosen: Float[Tensor, "B T"],
    rejected: Float[Tensor, "B T"],
    pair_mask: Bool[Tensor, "B T"],
    widest: Float[Tensor, " B"] | None = None,
) -> Float[Tensor, " B"]:
    """Pairwise loss on the scores of every token, one value per pair, as in the authors' code of arXiv 2404.00978.

    With Δ_t = chosen − rejected over the tokens of ``pair_mask`` (from the first in which the two answers differ to the
    end of the longer), and the widest margin δ* of the pair::

        mean_t −log σ(Δ_t) + mean_t −log σ(δ* − Δ_t)

    which is least at Δ = δ*/2. Without ``widest`` the second term is left out; this is Bradley–Terry, whose margins
    grow without bound.
    """
    margin = (chosen.float() - rejected.float()).masked_fill(~pair_mask, 0.0)
    terms = -functional.logsigmoid(margin)
    if widest is not None:
        terms = terms - functional.logsigmoid(widest.float()[:, None] - margin)
    return torch.where(pair_mask, terms, 0.0).sum(1) / pair_mask.sum(1).clamp(min=1)


def pcrm_pairwise(
    chosen: Float[Tensor, " B"],
    rejected: Float[Tensor, " B"],
    similarity: Float[Tensor, " B"],
    *,
    scale: float = 6.0,
    smoothing: float = 0.001,
    floor: float = 0.0,
) -> Float[Tensor, " B"]:
    """Pairwise loss with a bounded margin, one value per pair (prior-constraints reward model, arXiv 2404.00978).

    The form of the paper, on one score per answer; ``PairTrainer`` trains with the authors' :func:`pcrm_tokenwise`.

    With Δ = chosen − rejected and the widest margin δ* = scale / (similarity + smoothing) + floor::

        −log σ(Δ) − log σ(δ* − Δ)

    The more similar the two answers (similarity in [0, 1], e.g. a ratio of lengths or a cosine), the less their rewards
    may differ.
    """
    margin = chosen.float() - rejected.float()
    widest = scale / (similarity.float() + smoothing) + floor
    return -functional.logsigmoid(margin) - functional.logsigmoid(widest - margin)
