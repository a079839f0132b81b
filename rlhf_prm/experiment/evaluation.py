"""Accuracy on held-out problems before, during and after training."""

import math
from typing import Any

import torch
from transformers import TrainerCallback
from trl.models import unwrap_model_for_generation

from rlhf_prm.experiment.sources import Sources

NOTHING = {"accuracy": None, "process_accuracy": None}


def held_out_accuracy(trainer, sources: Sources, limit: int | None = None) -> dict[str, float | None]:
    """{"accuracy", "process_accuracy"} of the trainer's policy; None where there is nothing to measure it on.

    The toy world checks every step of its own; on other problems accuracy is the verifier's mean reward over
    ``eval_dataset`` and process accuracy is unknown. Training's random numbers are left as they were.
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        if sources.evaluate is not None:
            wrapped = getattr(trainer, "model_wrapped", trainer.model)
            with unwrap_model_for_generation(wrapped, trainer.accelerator) as model:
                training = model.training
                model.eval()
                result = sources.evaluate(model, limit)
                model.train(training)
            return result
        if sources.eval_dataset is None:
            return dict(NOTHING)
        dataset = sources.eval_dataset
        if limit is not None:
            dataset = dataset.select(range(min(limit, len(dataset))))
        reward = trainer.evaluate(eval_dataset=dataset).get("eval_rewards/verifier/mean")
        known = reward is not None and not math.isnan(reward)
        return {"accuracy": reward if known else None, "process_accuracy": None}


class EvaluateOnTheWay(TrainerCallback):
    """Adds eval/accuracy and eval/process_accuracy to the log of every ``every``-th update."""

    def __init__(self, sources: Sources, every: int, limit: int) -> None:
        self.sources, self.every, self.limit = sources, every, limit
        self.trainer: Any = None  # set by whoever builds the trainer: callbacks do not see it

    def on_step_end(self, args, state, control, **_: Any) -> None:
        if self.every and state.global_step % self.every == 0:
            for name, value in held_out_accuracy(self.trainer, self.sources, self.limit).items():
                if value is not None:
                    self.trainer._metrics["train"][f"eval/{name}"].append(value)
