"""A world's PRM: the policy's body with a new head, trained on labelled solutions until it no longer improves."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PrinterCallback, ProgressCallback

from rlhf_prm.files import write_json
from rlhf_prm.prm_training.config import PRMConfig
from rlhf_prm.prm_training.stopping import stopping_metric
from rlhf_prm.prm_training.trainer import PRMTrainer
from rlhf_prm.step_data import to_dataset
from rlhf_prm.tokenizer_checks import saved_tokenizer

TRAINING = "training.json"
MICRO_BATCH = 16  # rows of similar length that go through the model together


def train_reward_model(
    policy_path: Path,
    rows: Sequence[dict[str, Any]],
    folder: Path,
    *,
    seed: int,
    updates: int,
    batch_size: int,
    learning_rate: float,
    held_out: float,
    eval_every: int,
    patience: int,
    loss: str = "ce",
    target: str = "steps",
    metric: str | None = None,
    frozen_layers: int = 0,
    lr_scheduler_type: str = "constant_with_warmup",
    **settings: Any,
) -> None:
    """Write a PRM that ``load_prm`` loads into ``folder``, and ``training.json`` with its held-out metrics.

    The weights kept are those with the highest first-error F1 on rows held out of ``rows`` (the highest AUROC, where
    right solutions are so few that F1 is noise). Their labels come from the same source as the training labels, because
    in practice there are no exact ones. Equal arguments give equal weights on one thread.

    Args:
        policy_path: the language model it starts from.
        rows: stepwise-supervision rows, one per problem.
        updates: the most; training ends earlier if ``patience`` evaluations in a row, one every ``eval_every`` updates,
            bring no better F1.
        held_out: share of the rows that is evaluated on and not trained on.
        loss, target: as in ``PRMConfig``.
        metric: the held-out metric by which weights are kept; default: F1 or AUROC as above.
        frozen_layers: if above 0, the embeddings and this many of the lowest layers keep the policy's weights.
        lr_scheduler_type: of the learning rate; "linear" falls to 0 at the last of ``updates``.
        settings: further ones of ``PRMConfig``.
    """
    kept = len(rows) - max(1, round(held_out * len(rows)))
    micro_batch, metric = min(MICRO_BATCH, batch_size), metric or stopping_metric(rows[kept:])
    tokenizer = saved_tokenizer(policy_path)
    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as checkpoints:
        arguments = PRMConfig(
            output_dir=checkpoints,
            max_steps=updates,
            per_device_train_batch_size=micro_batch,
            gradient_accumulation_steps=max(1, batch_size // micro_batch),
            per_device_eval_batch_size=4 * MICRO_BATCH,
            learning_rate=learning_rate,
            lr_scheduler_type=lr_scheduler_type,
            warmup_steps=30,
            seed=seed,
            loss=loss,
            target=target,
            eval_strategy="steps",
            eval_steps=min(eval_every, updates),
            patience=patience,
            load_best_model_at_end=True,
            metric_for_best_model=metric,
            save_strategy="best",
            save_only_model=True,
            save_total_limit=1,
            report_to="none",
            logging_strategy="no",
            use_cpu=True,
            **settings,
        )
        trainer = PRMTrainer(
            str(policy_path),
            arguments,
            to_dataset(rows[:kept]),
            to_dataset(rows[kept:]),
            processing_class=tokenizer,
        )
        freeze_layers(trainer.model, frozen_layers)
        _without_printed_evaluations(trainer)
        trainer.train()
        trainer.save_model(str(folder))
    write_history(trainer, folder / TRAINING, rows=kept, held_out_rows=len(rows) - kept, stopped_by=metric)


def freeze_layers(model: PreTrainedModel, layers: int) -> None:
    """Embeddings and the lowest ``layers`` layers of a decoder are not trained; 0 = all of it is.

    Raises:
        ValueError: the model has fewer layers.
    """
    if not layers:
        return
    body = model.base_model
    if layers > len(body.layers):
        raise ValueError(f"frozen layers: got {layers}, expected at most the {len(body.layers)} of the model")
    for part in (body.get_input_embeddings(), *body.layers[:layers]):
        part.requires_grad_(False)


class _Bar(ProgressCallback):
    """transformers' progress bar without the evaluations between its lines: ``training.json`` has them."""

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        pass


def _without_printed_evaluations(trainer: PRMTrainer) -> None:
    for printing in (ProgressCallback, PrinterCallback):
        if any(type(callback) is printing for callback in trainer.callback_handler.callbacks):
            trainer.remove_callback(printing)
            if printing is ProgressCallback:
                trainer.add_callback(_Bar)


def write_history(trainer: PRMTrainer, path: Path, **facts: int | str) -> None:
    """Write the number of updates, the update whose weights are kept, and every evaluation, as JSON."""
    evaluations = [
        {"update": log["step"]} | {name.removeprefix("eval_"): log[name] for name in log if name.startswith("eval_")}
        for log in trainer.state.log_history
        if "eval_f1" in log
    ]
    best = trainer.state.best_global_step
    record = {"updates": trainer.state.global_step, "kept_update": best, **facts, "evaluations": evaluations}
    write_json(path, record)
