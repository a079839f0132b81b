"""A budget of generated tokens, so that runs of different methods can be compared at equal cost."""

import logging
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from rlhf_prm.files import read_json, write_json
from rlhf_prm.rl.trl_seam import metrics_of
from rlhf_prm.rl.update_batches import UpdateBatches

STATE_FILE = "token_budget.json"
logger = logging.getLogger(__name__)


class TokenBudget(TrainerCallback):
    """Logs ``generated_tokens``, all completion tokens so far, and ends the training once they reach ``budget``.

    Every batch generated for training counts, on all ranks, with the tokens that live Monte Carlo values sampled for
    it; held-out evaluations do not. The count is part of a checkpoint (``token_budget.json``), from which a resumed run
    continues.

    Args:
        trainer: a ``ProcessGRPOTrainer``; may be set later as ``callback.trainer``.
        budget: None = count only. A run ends with the update that reaches it.

    Raises:
        ValueError: a budget below one token.
    """

    def __init__(self, trainer: Any = None, budget: int | None = None) -> None:
        if budget is not None and budget < 1:
            raise ValueError(f"token_budget: got {budget}, expected at least 1 token, or none for no limit")
        self.trainer, self.budget, self.tokens = trainer, budget, 0
        self._batches = UpdateBatches()

    def on_train_begin(self, args, state, control, **kwargs):
        """Continue the count of the checkpoint that training resumes from."""
        self.tokens = 0
        if not state.global_step:
            return
        saved = self._file(state)
        if saved.exists():
            self.tokens = int(read_json(saved)["tokens"])
            return
        logged = [row["generated_tokens"] for row in state.log_history if "generated_tokens" in row]
        self.tokens = int(logged[-1]) if logged else 0
        logger.warning("%s has no %s: counting on from %d tokens, the last logged", *saved.parts[-2:], self.tokens)

    def on_substep_end(self, args, state, control, **kwargs):
        """Several generations may feed one update."""
        self._batches.look(self.trainer)

    def on_step_end(self, args, state, control, **kwargs):
        """Count what was generated for this update."""
        self._batches.look(self.trainer)
        for batch in self._batches.taken():
            self.tokens += int(batch.rollouts.token_counts.sum()) + batch.scorer_tokens
        # TRL logs the mean of a metric's list, so the list holds the newest count only.
        metrics_of(self.trainer, "train")["generated_tokens"][:] = [self.tokens]
        if self.budget is not None and self.tokens >= self.budget:
            control.should_training_stop = True

    def on_save(self, args, state, control, **kwargs):
        """Save the count in the checkpoint."""
        if self.trainer.accelerator.is_main_process:
            write_json(self._file(state), {"tokens": self.tokens})

    def _file(self, state) -> Path:
        return Path(self.trainer.args.output_dir) / f"checkpoint-{state.global_step}" / STATE_FILE
