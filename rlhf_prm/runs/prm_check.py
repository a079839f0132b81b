"""Checks once whether the PRM is better than chance on this policy, on the first rollouts of training."""

import math
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback

from rlhf_prm.evaluation.samples import SampledProblem
from rlhf_prm.preflight.measures import preflight_measures
from rlhf_prm.preflight.warning import warn_if_no_better_than_chance
from rlhf_prm.rl.rollout_scoring import ScoredRollout
from rlhf_prm.rl.trl_seam import metrics_of
from rlhf_prm.rl.update_batches import UpdateBatches

ENOUGH = 64  # verified rollouts in groups with right and wrong answers, on which a PRM's ranking can be measured
AT_MOST = 512  # verified rollouts after which the check is made anyway


class PRMCheck(TrainerCallback):
    """Logs ``prm/auroc_within`` once, and prints a warning if the PRM ranks a group's rollouts no better than chance.

    The verified rollouts of the first updates are collected, with the scores that they were trained with, until
    ``ENOUGH`` of them are in mixed groups, or there are ``AT_MOST``. Nothing is generated or scored for it, and a run
    that ends earlier is not checked. ``prm/auroc_within`` is the AUROC within groups of a rollout's lowest step score.

    Args:
        trainer: a ``ProcessGRPOTrainer``; may be set later, before training starts.
        enough, at_most: rollouts, see above.

    Attributes:
        warning: the warning that was printed; None if there was none.
    """

    def __init__(self, trainer: Any = None, *, enough: int = ENOUGH, at_most: int = AT_MOST) -> None:
        self.trainer, self.enough, self.at_most = trainer, enough, at_most
        self.warning: str | None = None
        self._samples: list[SampledProblem] = []
        self._batches = UpdateBatches()
        self._done = False

    def on_train_begin(self, args, state, control, **kwargs):
        """Switch off for a resumed run, which was checked at its start, and without groups to compare in."""
        self._done = state.global_step > 0 or self.trainer.num_generations < 2

    def on_substep_end(self, args, state, control, **kwargs):
        """Several generations may feed one update."""
        if not self._done:
            self._batches.look(self.trainer)

    def on_step_end(self, args, state, control, **kwargs):
        """Collect rollouts, and measure once there are enough."""
        if self._done:
            return
        self._batches.look(self.trainer)
        for batch in self._batches.taken():
            self._samples += verified_groups(batch.rows, batch.rollouts.num_generations)
        sizes = [(len(sample.correct), 0 < sum(sample.correct) < len(sample.correct)) for sample in self._samples]
        if sum(size for size, mixed in sizes if mixed) >= self.enough or sum(size for size, _ in sizes) >= self.at_most:
            self._measure(state.is_world_process_zero)

    def _measure(self, prints: bool) -> None:
        measures = preflight_measures(self._samples)
        self._done, self._samples = True, []
        if measures["auroc_min"] is not None:
            metrics_of(self.trainer, "train")["prm/auroc_within"].append(measures["auroc_min"])
        self.warning = warn_if_no_better_than_chance(measures)
        if self.warning and prints:
            tqdm.write(f"warning: {self.warning}")  # above the progress line


def verified_groups(rows: list[ScoredRollout], num_generations: int) -> list[SampledProblem]:
    """The groups of a batch as verified and scored samples.

    Rollouts without a verdict, empty rollouts, and groups in which then only one is left are left out. Rollouts
    whose text has stayed on another rank are included, with empty steps: they were scored and verified there like
    all others, and only numbers are measured here.
    """
    groups = []
    for first in range(0, len(rows), num_generations):
        known = [
            row for row in rows[first : first + num_generations] if not math.isnan(row.verdict) and not _is_empty(row)
        ]
        if len(known) > 1:
            groups.append(
                SampledProblem(
                    known[0].prompt,
                    [row.steps for row in known],
                    [row.verdict == 1.0 for row in known],
                    [None] * len(known),
                    step_scores=[row.scores for row in known],
                )
            )
    return groups


def _is_empty(row: ScoredRollout) -> bool:
    """Whether the policy ended at once, or wrote nothing but white space where the text is known."""
    return sum(row.lengths) <= 1 or (row.has_text and not any(step.strip() for step in row.steps))
