"""Measures the distance between teacher and student before the first update, on completions of a few prompts."""

import math
from itertools import islice
from typing import Any

from accelerate.utils import gather_object
from tqdm.auto import tqdm
from transformers import TrainerCallback

from rlhf_prm.prm.log_ratio import distance
from rlhf_prm.rl.sampled import sampled
from rlhf_prm.rl.scorers import PolicyRollout
from rlhf_prm.rl.undisturbed import log_row, training_undisturbed

FAR = 1.0  # nats per token: beyond it the teacher would have written something else on most tokens
PROMPTS = 16


class TeacherCheck(TrainerCallback):
    """Prints and logs (``teacher/…``) the distance of a log-ratio scorer's model and the policy.

    Args:
        trainer: a ``ProcessGRPOTrainer`` or its kind; set later, before training starts.

    Attributes:
        told: the printed text; None before.
    """

    def __init__(self, trainer: Any = None, prompts: int = PROMPTS) -> None:
        self.trainer, self.prompts = trainer, prompts
        self.told: str | None = None

    def on_train_begin(self, args, state, control, **kwargs):
        """Measure, unless the run is resumed: then it was measured at its start."""
        if state.global_step:
            return
        trainer, scoring = self.trainer, self.trainer.scoring
        ranks, rank = trainer.accelerator.num_processes, trainer.accelerator.process_index
        rows = list(islice(iter(trainer.train_dataset), self.prompts * ranks))
        mine = rows[rank::ranks][: max(1, len(rows) // ranks)]
        # A generation outside of training is of whole groups: vLLM's server samples each prompt so often.
        rows = [row for row in mine for _ in range(trainer.num_generations_eval)]
        with training_undisturbed(trainer):
            trainer.model.eval()
            rollouts = [
                PolicyRollout(row["prompt"], list(ids), [len(ids)], None, math.nan, policy_mask=told.policy_mask)
                for row, (ids, told) in zip(rows, sampled(trainer, rows), strict=True)
            ]
            scores, _ = scoring.of_tokens(scoring.step_scorer, rollouts, False)
            scores = gather_object(scores)
        found = distance(scores)
        log_row(trainer, {f"teacher/{name}": value for name, value in found.items() if not math.isnan(value)})
        self.told = (
            f"teacher and policy are {abs(found['kl']):.3f} nats per token apart; on {found['beyond_5']:.1%} of the "
            f"tokens by more than 5, at worst by {abs(found['worst']):.1f}"
        )
        if abs(found["kl"]) > FAR:
            self.told = f"warning: {self.told}: it may write in another format; look at both, or train on its texts"
        if state.is_world_process_zero:
            tqdm.write(self.told)
