"""The numbers logged about one batch of scored rollouts, under process/…, advantage/… and verifier/…."""

import math
from collections import Counter

import torch
from jaxtyping import Bool
from torch import Tensor

from reward import StepRollouts
from reward.verifier import STATUSES
from rlhf_prm.judges.stats import judge_metrics
from rlhf_prm.rl.rollout_scoring import UNLABELLED, UNVERIFIED, ScoredRollout
from rlhf_prm.statistics import auroc


def rollout_metrics(rollouts: StepRollouts, rows: list[ScoredRollout], step_advantages: Tensor) -> dict[str, float]:
    """Metric name → value over the whole batch; NaN where there is nothing to measure.

    ``process/step_score/mean`` is over steps, ``process/step_score/min`` the mean over rollouts of the lowest;
    ``process/auroc`` compares the lowest score of each scored rollout with its verdict (with its outcome if
    there is no verifier); ``advantage/frac_zero`` is the share of rollouts whose advantages are all 0.
    ``verifier/<status>_frac`` needs a verifier. ``process/turn_score/mean`` and ``process/tool_results/mean`` (runs of
    tokens that tools or environments wrote, per rollout) are logged if there are any.
    """
    scores = [[score for score in row.scores if not math.isnan(score)] for row in rows]
    lowest = torch.tensor([min(row) if row else math.nan for row in scores], device=rollouts.step_scores.device)
    every = [score for row in scores for score in row]
    steps = sum(len(row.steps) for row in rows)
    masked = step_advantages * rollouts.step_mask
    metrics = {
        "process/step_score/mean": sum(every) / len(every) if every else math.nan,
        "process/step_score/min": lowest.nanmean().item(),
        "process/num_steps/mean": steps / len(rows),
        "process/unscored_frac": 1 - len(every) / steps,
        "process/auroc": process_auroc(rollouts, among=~lowest.isnan()),
        "advantage/frac_zero": (masked == 0).all(dim=1).float().mean().item(),
    }
    if rollouts.token_scores is not None:
        tokens = rollouts.token_scores[rollouts.token_mask].double()
        metrics |= {
            "process/token_score/mean": tokens.mean().item(),
            "process/token_score/std": tokens.std(correction=0).item(),
            "process/token_score/abs_max": tokens.abs().max().item(),
        }
    turn_scores = [score for row in rows for score in row.turn_scores or [] if not math.isnan(score)]
    if turn_scores:
        metrics["process/turn_score/mean"] = sum(turn_scores) / len(turn_scores)
    if any(row.tool_results for row in rows):
        metrics["process/tool_results/mean"] = sum(len(row.tool_results) for row in rows) / len(rows)
    counts = Counter(row.status for row in rows)
    if not counts[UNVERIFIED]:
        metrics |= {f"verifier/{status}_frac": counts[status] / len(rows) for status in (*STATUSES, UNLABELLED)}
    return metrics


def scorer_metrics(growth: dict[str, float]) -> dict[str, float]:
    """Metric name → value of this rank's scorer for a batch; ``growth`` is the increase of its running totals."""
    names = ("forwards", "completions", "tokens", "duplicates")
    return {f"prm/{name}": growth[name] for name in names if name in growth} | judge_metrics(growth)


def process_auroc(rollouts: StepRollouts, among: Bool[Tensor, " B"] | None = None) -> float:
    """AUROC of a rollout's lowest step score against its verdict; NaN if all are right or all wrong.

    A solution is only as good as its worst step, so the lowest score should agree with the verdict.

    Args:
        among: the rollouts that count, of the scorable ones; None = all of them.
    """
    lowest = rollouts.step_scores.float().masked_fill(~rollouts.step_mask, torch.inf).amin(1)
    ranked = rollouts.scorable if among is None else rollouts.scorable & among
    return auroc(lowest[ranked], rollouts.correct[ranked])
