"""Ends PRM training when held-out first-error F1 no longer rises, or when its seconds are used up."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from transformers import EarlyStoppingCallback, TrainerCallback

from rlhf_prm.evaluation.chance import CHANCE_AUROC
from rlhf_prm.prm_training.config import PRMConfig

FEWEST = 30  # with fewer right, or fewer erroneous, held-out solutions first-error F1 is mostly noise


def stopping_metric(rows: Iterable[Mapping[str, Any]]) -> str:
    """``f1``, or ``auroc`` if the held-out rows have too few right or too few erroneous solutions for a reliable F1.

    F1 is the harmonic mean of a share of the right and a share of the erroneous solutions: with 4 right ones, as long
    chains may have, each counts .25 of its share. AUROC of the step scores counts every labelled step.
    """
    right = [all(row["labels"]) for row in rows]
    return "f1" if FEWEST <= sum(right) <= len(right) - FEWEST else "auroc"


def stopping_callbacks(config: PRMConfig) -> list[TrainerCallback]:
    """The callbacks that ``patience`` and ``seconds_budget`` ask for."""
    callbacks: list[TrainerCallback] = []
    if config.patience:
        callbacks.append(PatienceOnceLearned(config.patience))
    if config.seconds_budget is not None:
        callbacks.append(SecondsBudget(config.seconds_budget))
    return callbacks


class PatienceOnceLearned(EarlyStoppingCallback):
    """transformers' early stopping, whose patience begins once the PRM is better than chance.

    Chance is the F1 of a blind guess, and an AUROC of .5.

    A PRM often gives a constant for its first hundreds of updates, with an F1 of 0 at every evaluation. That is not a
    reason to stop. With other metrics patience counts from the start. Evaluations of a dataset that
    ``metric_for_best_model`` does not name are passed over.
    """

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        name = args.metric_for_best_model
        name = name if name.startswith("eval_") else f"eval_{name}"
        if name not in metrics:
            return
        chance = CHANCE_AUROC if name.endswith("auroc") else None
        if name.endswith("f1"):
            chance = metrics.get(f"{name.removesuffix('f1')}chance_f1")
        best = metrics[name] if state.best_metric is None else max(metrics[name], state.best_metric)
        if chance is None or best > chance:
            super().on_evaluate(args, state, control, metrics, **kwargs)


class SecondsBudget(TrainerCallback):
    """Ends the training after ``seconds`` of this process, with a last evaluation; a resumed run counts from 0 again.

    Ranks agree: the slowest clock decides.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.began = time.monotonic()

    def on_train_begin(self, args, state, control, **kwargs):
        self.began = time.monotonic()

    def on_step_end(self, args, state, control, **kwargs):
        elapsed = time.monotonic() - self.began
        if args.world_size > 1:
            longest = torch.tensor(elapsed, device=args.device)
            torch.distributed.all_reduce(longest, op=torch.distributed.ReduceOp.MAX)
            elapsed = longest.item()
        if elapsed >= self.seconds:
            control.should_training_stop = True
            control.should_evaluate = control.should_evaluate or args.eval_strategy != "no"
