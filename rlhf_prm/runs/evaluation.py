"""Accuracy on held-out problems before, during and after training."""

from typing import Any

from accelerate.utils import gather_object
from datasets import Dataset
from transformers import TrainerCallback
from trl.models import unwrap_model_for_generation

from rlhf_prm.rl.sampled import sampled
from rlhf_prm.rl.turns import cut_rollout
from rlhf_prm.rl.undisturbed import log_row, training_undisturbed
from rlhf_prm.runs.sources import Sources

NOTHING = {"accuracy": None, "process_accuracy": None}


def held_out_accuracy(trainer, sources: Sources, limit: int | None = None) -> dict[str, float | None]:
    """{"accuracy", "process_accuracy"} of the trainer's policy; None if there are no problems to measure it on.

    The toy world checks every step itself; on other problems accuracy is the verifier's mean reward over
    ``eval_dataset`` and process accuracy is unknown. Training is not affected.
    """
    with training_undisturbed(trainer):
        if sources.evaluate is not None:
            with unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as model:
                model.eval()
                return sources.evaluate(model, limit)
        if sources.eval_dataset is None:
            return dict(NOTHING)
        dataset = sources.eval_dataset
        if limit is not None:
            dataset = dataset.select(range(min(limit, len(dataset))))
        return {"accuracy": verified_accuracy(trainer, dataset), "process_accuracy": None}


def samples_of_accuracy(trainer, sources: Sources, limit: int) -> int:
    """How many completions ``held_out_accuracy`` is the mean of: a world has one for each problem."""
    if sources.evaluate is not None:
        return max(1, min(limit, sources.eval_problems))
    return max(1, min(limit, len(sources.eval_dataset))) * trainer.num_generations_eval


def verified_accuracy(trainer, dataset: Dataset) -> float | None:
    """The verifier's mean reward over ``num_generations_eval`` samples per problem; None without any gold answer.

    It only samples and verifies: the PRM, the reference model and the loss are not used. Every problem counts
    once on any number of ranks, whatever the batch size. Call it inside ``training_undisturbed``.
    """
    samples, accelerator = trainer.num_generations_eval, trainer.accelerator
    rows = [row for row in dataset for _ in range(samples)]
    share = max(samples, trainer.args.per_device_eval_batch_size // samples * samples)  # of whole groups
    rewards: list[float | None] = []
    trainer.model.eval()
    for first in range(0, len(rows), share * accelerator.num_processes):
        mine = first + share * accelerator.process_index
        batch = rows[mine : mine + share]
        # All ranks generate the same number of rollouts together: a rank with too few repeats the first row.
        rewards += gather_object(_rewards(trainer, batch + [rows[0]] * (share - len(batch)))[: len(batch)])
    known = [reward for reward in rewards if reward is not None]
    return sum(known) / len(known) if known else None


def _rewards(trainer, rows: list[dict[str, Any]]) -> list[float | None]:
    """The verifier's reward of one sample per row; None where it has no gold answer or could not judge."""
    scoring, completions = trainer.scoring, sampled(trainer, rows)
    verifier = scoring.verifier
    labelled = [i for i, row in enumerate(rows) if row.get("solution") is not None]
    cut = [cut_rollout(completions[i][0], scoring.tokenizer, scoring.splitter, completions[i][1]) for i in labelled]
    texts = [one.answer for one in cut]
    verdicts = verifier.verify(texts, [rows[i]["solution"] for i in labelled]) if labelled else []
    rewards: list[float | None] = [None] * len(rows)
    for i, verdict in zip(labelled, verdicts, strict=True):
        rewards[i] = verdict.reward
    return rewards


class EvaluateOnTheWay(TrainerCallback):
    """Logs eval/accuracy and eval/process_accuracy after every ``every``-th update, in a separate row.

    The row is separate because TRL averages the metrics of a row over the updates since the last one.
    """

    def __init__(self, sources: Sources, every: int, limit: int) -> None:
        self.sources, self.every, self.limit = sources, every, limit
        self.trainer: Any = None  # set by the code that builds the trainer: callbacks do not see it
        self._newest: tuple[int, dict[str, float | None]] | None = None

    def measured(self) -> dict[str, float | None]:
        """``held_out_accuracy`` after the present update, measured once and then cached.

        Measuring again would give the same: the weights are the same, and the random state is restored.
        """
        update = self.trainer.state.global_step
        if self._newest is None or self._newest[0] != update:
            self._newest = update, held_out_accuracy(self.trainer, self.sources, self.limit)
        return self._newest[1]

    def on_step_end(self, args, state, control, **_: Any) -> None:
        if self.every and state.global_step % self.every == 0:
            row = {f"eval/{name}": value for name, value in self.measured().items() if value is not None}
            if row:
                log_row(self.trainer, row)
