"""The accuracy that a guard decides by, and the measures of an update's rollouts."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from accelerate.utils import broadcast_object_list

from rlhf_prm.guard.detectors import measurements
from rlhf_prm.rl.undisturbed import training_undisturbed
from rlhf_prm.rl.update_batches import joined


def update_measures(batches: Sequence[Any], texts: int, characters: int) -> tuple[dict[str, float], float, float]:
    """(measures, mean step score, share of correct rollouts) of all batches of an update together.

    Args:
        batches: the trainer's ``ScoredBatch``es.
        texts: most rollouts whose text is measured.
        characters: how many characters of each text are measured, from its end, where repetition and the answer are.
    """
    rollouts, rows = joined([batch.rollouts for batch in batches]), [row for batch in batches for row in batch.rows]
    rows = [row for row in rows if row.has_text]
    rows = rows[:: math.ceil(len(rows) / texts)]
    measures = measurements(
        rollouts,
        [row.prompt for row in rows],
        [row.text[-characters:] for row in rows],
        [_excerpt(row.steps, characters) for row in rows],
    )
    scores = rollouts.step_scores[rollouts.step_mask]
    right = rollouts.correct[rollouts.scorable].float()
    return measures, float(scores.mean()), float(right.mean()) if len(right) else math.nan


def _excerpt(steps: Sequence[str], characters: int) -> Sequence[str]:
    """The first step, and as many of the last ones as fit in ``characters``."""
    kept, left = 0, characters - len(steps[0])
    for step in reversed(steps[1:]):
        left -= len(step)
        if left < 0:
            break
        kept += 1
    return [steps[0], *steps[len(steps) - kept :]]


def asked_accuracy(trainer: Any, held_out: Callable[[], float | None]) -> float:
    """The result of ``held_out``, without an effect on training; NaN if the verifier could judge no sample."""
    with training_undisturbed(trainer):
        answer = held_out()
    return math.nan if answer is None else float(answer)


def on_every_rank(trainer: Any, accuracy: float) -> float:
    """The main process's accuracy: ranks that decided differently would wait for each other forever."""
    shared = [accuracy]
    if trainer.accelerator.num_processes > 1:
        broadcast_object_list(shared)
    return shared[0]
