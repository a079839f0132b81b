"""PRMTrainer trains a process reward model on stepwise-supervision data, with transformers' Trainer."""

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import (
    AddedToken,
    AutoConfig,
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    set_seed,
)
from transformers.trainer_pt_utils import BatchRebalanceSampler

from rlhf_prm.evaluation.chance import chance_f1
from rlhf_prm.evaluation.processbench import processbench_metrics
from rlhf_prm.prm.decoders import (
    NUM_LABELS,
    STEP_TAG,
    StepEndLogits,
    complete,
    decoder_class,
    decoder_with_new_head,
    head_name,
)
from rlhf_prm.prm.families import FAMILIES, Family
from rlhf_prm.prm.qwen2 import Qwen2ForProcessRewardModel
from rlhf_prm.prm.texts import Texts
from rlhf_prm.prm_training import losses
from rlhf_prm.prm_training.config import PRMConfig
from rlhf_prm.prm_training.data import IGNORE, StepCollator, by_length, encode_dataset
from rlhf_prm.prm_training.stages import hold_body, split_head_groups
from rlhf_prm.prm_training.stopping import stopping_callbacks
from rlhf_prm.rl.master_weights import check_master_weights, refuse_deepspeeds_own
from rlhf_prm.rl.trl_seam import count_labels_unshifted, prepared
from rlhf_prm.statistics import auroc, expected_calibration_error, predicted_first_error
from rlhf_prm.tokenizer_checks import check_is_saved_one, saved_tokenizer


class PRMTrainer(Trainer):
    """Trains a process reward model from any decoder on step labels (arXiv 2501.07301).

    A Qwen2 language model becomes a :class:`Qwen2ForProcessRewardModel`, the layout of Qwen2.5-Math-PRM; any other
    decoder a token classifier (:mod:`rlhf_prm.prm.decoders`).

    transformers' ``Trainer`` with three things replaced: the loss is taken at step ends only, evaluation reports
    first-error F1, AUROC and ECE of the step scores, and ``save_model`` writes a whole model after LoRA too. DDP, ZeRO,
    FSDP, mixed precision, resuming and reporting are the Trainer's own.

    Args:
        model: a PRM to go on with, or the name or path of a PRM or of a language model, whose head is then replaced by
            a new one: Linear-ReLU-Linear for Qwen2, Linear for other decoders.
        args: see :class:`PRMConfig`.
        train_dataset: stepwise-supervision rows: ``prompt``, ``completions`` (steps), ``labels`` (True = right), and
            ``soft_labels`` for loss "mse". With target "outcome" rows of the source "outcome", or with a column
            ``outcome``.
        eval_dataset: such rows, or a dict of named datasets.
        processing_class: the tokenizer; by default from the path. A step tag ``<extra_0>`` that it lacks is added. It
            needs no pad token: rows are padded on the right, where nothing is read.
        peft_config: LoRA on the body; the head is trained whole.
    """

    def __init__(
        self,
        model: str | Path | PreTrainedModel,
        args: PRMConfig,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        peft_config: Any | None = None,
        callbacks: Sequence[TrainerCallback] = (),
        **kwargs: Any,
    ):
        set_seed(args.seed)  # a new head, a new tag's embedding and adapters are initialised before the Trainer seeds
        if isinstance(model, PreTrainedModel):
            if processing_class is None:
                raise ValueError("processing_class: got None with a model in memory, expected its tokenizer")
        else:
            if processing_class is None:
                processing_class = saved_tokenizer(model, revision=(args.model_init_kwargs or {}).get("revision"))
            else:
                check_is_saved_one(processing_class, model)
            model = _model_from(model, args)
        make_room_for_tag(model, processing_class)
        family = _family_of(model)
        mark_target(model, args.target)
        if peft_config is not None:
            model = _with_adapters(model, peft_config)
        self._encode = partial(
            encode_dataset,
            encode=partial(family.rendered, Texts(processing_class, family.tag)),
            drop_after_error=args.steps_after_error == "drop",
            max_length=args.max_length,
            soft=args.loss == "mse",
            target=args.target,
            num_proc=args.dataset_num_proc,
        )
        if isinstance(eval_dataset, dict):
            eval_dataset = {name: self.encoded(rows, name) for name, rows in eval_dataset.items()}
        elif eval_dataset is not None:
            eval_dataset = self.encoded(eval_dataset, "eval")
        if args.head_updates or args.head_learning_rate is not None:
            refuse_deepspeeds_own(args, "head_learning_rate and head_updates")
        self._reads_step_ends = isinstance(_base_of(model), StepEndLogits)
        super().__init__(
            model=model,
            args=args,
            data_collator=StepCollator(_padding(processing_class)),
            train_dataset=None
            if train_dataset is None
            else self._encode(train_dataset, name="train", verdict_at=args.verdict_at),
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            compute_metrics=step_metrics,
            callbacks=[*stopping_callbacks(args), *callbacks],
            **kwargs,
        )
        if train_dataset is not None and self.optimizer is None:  # the caller's own optimizer may keep float32 copies
            check_master_weights(self.model, args, args.learning_rate)
        # The loss is a mean over the labelled steps (pqm: the rollouts) of the whole update, however it is split into
        # micro-batches and ranks: the Trainer counts them in `labels`, unshifted.
        self.model_accepts_loss_kwargs = True
        count_labels_unshifted(self)

    def encoded(self, rows: Dataset, name: str) -> Dataset:
        """Stepwise rows as ``evaluate`` and ``predict`` take them: tokenized, in the order of their token counts.

        Neighbouring rows then have similar lengths and need little padding.

        Args:
            name: of the data set, for error messages.
        """
        return by_length(self._encode(rows, name=name))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ):
        """The configured loss over the labelled step ends; outputs are the step logits (B, K, 2)."""
        logits = self._step_logits(model, inputs)
        labels, step_mask = inputs["labels"] == 1, inputs["labels"] != IGNORE
        if self.args.loss == "pqm":
            terms = losses.pqm_ranking(losses.step_values(logits), labels, step_mask, zeta=self.args.zeta)
            counted = len(terms)
        elif self.args.loss == "mse":
            terms = losses.soft_mean_squared_error(logits, inputs["soft_labels"], step_mask)
            counted = step_mask.sum()
        else:
            terms = losses.hard_cross_entropy(logits, labels, step_mask)
            counted = step_mask.sum()
        if num_items_in_batch is None:
            loss = terms.sum() / counted
        else:  # the gradients of the ranks are averaged, so the sum over ranks is this times their number
            ranks = self.accelerator.num_processes if self.args.average_tokens_across_devices else 1
            loss = terms.sum() / num_items_in_batch * ranks
        return (loss, logits) if return_outputs else loss

    def _step_logits(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """Logits (B, K, 2) at the step ends.

        Rows are padded on the right and attention is causal: no token that is read sees the padding, so our own model
        takes no mask, and its head sees the step ends alone.
        """
        if self._reads_step_ends:
            return model(input_ids=inputs["input_ids"], step_ends=inputs["step_ends"]).logits
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        return logits.gather(1, inputs["step_ends"][..., None].expand(-1, -1, 2))

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Tensor | int | None:
        """The number of items that the loss is a mean over: labelled steps, or rollouts for pqm."""
        if self.args.loss == "pqm":
            batch_samples = [{"labels": torch.ones(len(batch["labels"]))} for batch in batch_samples]
        return super()._get_num_items_in_batch(batch_samples, device)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> torch.utils.data.Sampler | None:
        """The Trainer's sampler; batch_rebalance shuffles by our seed, where the Trainer's is the same for all runs."""
        sampler = super()._get_train_sampler(train_dataset)
        if isinstance(sampler, BatchRebalanceSampler):
            sampler.seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return sampler

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Loss, step scores (B, K), and labels (B, K) with first errors (B,).

        Scores and labels are −100 where there is no labelled step; first errors are those of the whole solutions.
        """
        inputs = prepared(self, inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, logits = self.compute_loss(model, inputs, return_outputs=True)
        if prediction_loss_only:
            return loss.detach(), None, None
        scores = logits.float().softmax(-1)[..., 1].masked_fill(inputs["labels"] == IGNORE, IGNORE)
        return loss.detach(), scores.detach(), (inputs["labels"], inputs["first_errors"])

    def create_optimizer(self, model=None):
        """The Trainer's optimizer, its groups split into body and head where they are treated differently."""
        fresh = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if fresh and self._head_is_special:
            split_head_groups(optimizer, self.model if model is None else model, self.args.head_learning_rate)
        return optimizer

    def create_scheduler(self, num_training_steps, optimizer=None):
        """The Trainer's schedule; in the first of two stages the body's learning rate is 0."""
        fresh = self.lr_scheduler is None
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        if fresh and self.args.head_updates:
            hold_body(scheduler, self.args.head_updates)
        return scheduler

    @property
    def _head_is_special(self) -> bool:
        return self.args.head_updates > 0 or self.args.head_learning_rate is not None

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write a folder that ``load_prm`` and vLLM load. With LoRA it has the merged model, and ``adapter/``.

        The Trainer's own checkpoints keep the adapter alone, to resume from.
        """
        unwrapped = self.accelerator.unwrap_model(self.model)
        if _internal_call or not hasattr(unwrapped, "merge_and_unload"):
            return super().save_model(output_dir, _internal_call)
        output_dir = Path(output_dir or self.args.output_dir)
        super().save_model(str(output_dir / "adapter"), _internal_call=True)
        if self.is_deepspeed_enabled and self.accelerator.state.deepspeed_plugin.zero_stage == 3:
            raise ValueError(
                f"LoRA under ZeRO-3 is saved as an adapter only ({output_dir / 'adapter'}): merge it in one process "
                "with rlhf_prm.prm_training.trainer.merge_adapter(model, adapter, output)"
            )
        if self.args.should_save:
            merged = copy.deepcopy(unwrapped).cpu().merge_and_unload()
            merged.save_pretrained(output_dir)
            self.processing_class.save_pretrained(output_dir)
        self.accelerator.wait_for_everyone()


def step_metrics(evaluated: EvalPrediction) -> dict[str, float]:
    """First-error F1 (a step is wrong at ≤ 0.5) with its two accuracies and the F1 of a blind guess (``chance_f1``),
    AUROC and ECE over all labelled steps. A first error that was cut off counts as missed."""
    scores, (labels, first_errors) = evaluated.predictions, evaluated.label_ids
    mask = labels != IGNORE
    predictions = [predicted_first_error(row[real].tolist()) for row, real in zip(scores, mask, strict=True)]
    truth = first_errors.tolist()
    flat_scores, flat_labels = scores[mask].astype(np.float64), labels[mask]
    return {
        **processbench_metrics(predictions, truth),
        "chance_f1": chance_f1(truth),
        "auroc": auroc(flat_scores, flat_labels),
        "ece": expected_calibration_error(flat_scores, flat_labels),
    }


def mark_target(model: PreTrainedModel, target: str) -> None:
    """Note in the model's config what it learns, which ``load_prm`` reads; a process reward model has no such note."""
    config = _base_of(model).config
    if target != "steps" or getattr(config, "prm_target", target) != target:
        config.prm_target = target


def merge_adapter(model: str | Path, adapter: str | Path, output: str | Path, target: str = "steps") -> None:
    """Write base model + LoRA adapter (with the trained head) as one PRM that ``load_prm`` and vLLM load.

    ``target`` is that of the training, which an adapter's folder does not record.
    """
    from peft import PeftModel

    tokenizer = saved_tokenizer(adapter)
    base = _model_from(model, None)
    make_room_for_tag(base, tokenizer)
    mark_target(base, target)
    PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(output)
    tokenizer.save_pretrained(output)


def _model_from(name_or_path: str | Path, args: PRMConfig | None) -> PreTrainedModel:
    given = {} if args is None or args.model_init_kwargs is None else dict(args.model_init_kwargs)
    options = {"dtype": torch.float32} | given
    config = AutoConfig.from_pretrained(name_or_path, revision=options.get("revision"))
    architecture = (config.architectures or [""])[0]
    if architecture == Qwen2ForProcessRewardModel.__name__:
        return Qwen2ForProcessRewardModel.from_pretrained(name_or_path, **options)
    if architecture.endswith("ForTokenClassification") and config.num_labels == NUM_LABELS:
        return complete(decoder_class(config), name_or_path, **options)
    if config.model_type == "qwen2":
        return Qwen2ForProcessRewardModel.with_new_head(name_or_path, **options)
    return decoder_with_new_head(name_or_path, **options)


def _family_of(model: PreTrainedModel) -> Family:
    """How steps are marked in training, and how ``load_prm`` marks them in what is saved here."""
    if isinstance(_base_of(model), Qwen2ForProcessRewardModel):
        return FAMILIES["qwen_prm"]
    model.config.step_tag = STEP_TAG  # for load_prm, whatever the model was trained with before
    return FAMILIES["decoder_prm"]


def make_room_for_tag(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Add the step tag to a tokenizer that lacks it, and embedding rows if the model has none for it."""
    tokenizer.add_tokens([AddedToken(STEP_TAG, special=True)], special_tokens=True)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer))


def _padding(tokenizer: PreTrainedTokenizerBase) -> int:
    """An id to pad with. Any id will do, as no token that is read sees the padding."""
    return 0 if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def _base_of(model: nn.Module) -> nn.Module:
    """The model inside PEFT's wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _with_adapters(model: PreTrainedModel, peft_config: Any) -> nn.Module:
    from peft import get_peft_model

    peft_config = copy.copy(peft_config)
    peft_config.task_type = None  # a causal LM's wrapper would look for generation
    peft_config.modules_to_save = sorted({*(peft_config.modules_to_save or []), head_name(model)})
    return get_peft_model(model, peft_config)
