"""The numbers logged about one batch of scored rollouts, under process/…, advantage/… and verifier/…."""

import math
from collections import Counter

import torch
from torch import Tensor

from reward import StepRollouts
from reward.hacking import auroc
from reward.verifier import STATUSES
from rlhf_prm.trainers.rollout_scoring import UNLABELLED, ScoredRollout


def rollout_metrics(rollouts: StepRollouts, rows: list[ScoredRollout], step_advantages: Tensor) -> dict[str, float]:
    """Metric name → value over the whole batch; NaN where there is nothing to measure.

    ``process/step_score/mean`` is over steps, ``process/step_score/min`` the mean over rollouts of the lowest;
    ``process/auroc`` ranks rollouts by their lowest step score against the verifier's verdict;
    ``advantage/frac_zero`` is the share of rollouts that teach nothing.
    """
    scores = [[score for score in row.scores if not math.isnan(score)] for row in rows]
    lowest = [min(row) if row else math.nan for row in scores]
    every = [score for row in scores for score in row]
    judged = [i for i, row in enumerate(rows) if row.reward is not None and not math.isnan(lowest[i])]
    steps = sum(len(row.steps) for row in rows)
    masked = step_advantages * rollouts.step_mask
    metrics = {
        "process/step_score/mean": sum(every) / len(every) if every else math.nan,
        "process/step_score/min": torch.tensor(lowest).nanmean().item(),
        "process/num_steps/mean": steps / len(rows),
        "process/unscored_frac": 1 - len(every) / steps,
        "process/auroc": auroc(
            torch.tensor([lowest[i] for i in judged]), torch.tensor([rows[i].status == "correct" for i in judged])
        )
        if judged
        else math.nan,
        "advantage/frac_zero": (masked == 0).all(dim=1).float().mean().item(),
    }
    counts = Counter(row.status for row in rows)
    return metrics | {f"verifier/{status}_frac": counts[status] / len(rows) for status in (*STATUSES, UNLABELLED)}
