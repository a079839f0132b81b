"""PairTrainer: a reward model from pairs of answers, with margins bounded by their similarity (arXiv 2404.00978)."""

import random
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase, Trainer, set_seed

from rlhf_prm.prm.decoders import decoder_with_new_head
from rlhf_prm.prm.families import FAMILIES
from rlhf_prm.prm.texts import Texts
from rlhf_prm.prm_training import losses
from rlhf_prm.prm_training.pair_config import PairConfig
from rlhf_prm.prm_training.pairs import (
    Pair,
    PairCollator,
    angle_similarity,
    encoder_cosines,
    length_ratio,
    widest_margin,
)
from rlhf_prm.prm_training.trainer import make_room_for_tag
from rlhf_prm.rl.trl_seam import prepared
from rlhf_prm.statistics import correlation
from rlhf_prm.tokenizer_checks import saved_tokenizer

RANDOM_WIDEST, FIXED_WIDEST = (1.0, 2.0), 3.0  # the published controls


class PairTrainer(Trainer):
    """Trains a scalar head on pairs (better, worse) of one problem.

    The head scores every token, as in the authors' code; the score of an answer is that of its last token, and
    ``load_prm`` reads one at the end of each step (family ``pair_reward``). Evaluation reports the accuracy on pairs,
    the mean margin, the spread of the scores (their standard deviation over all answers), and their correlation with
    the answers' lengths in tokens.

    Args:
        model: a decoder's folder or name, which gets a new head; or a model with such a head in memory.
        args: see :class:`PairConfig`.
        train_dataset, eval_dataset: the pairs.
        processing_class: the tokenizer; by default from the path.
    """

    def __init__(
        self,
        model: str | Path | PreTrainedModel,
        args: PairConfig,
        train_dataset: Sequence[Pair] | None = None,
        eval_dataset: Sequence[Pair] | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        **kwargs: Any,
    ):
        set_seed(args.seed)
        if not isinstance(model, PreTrainedModel):
            options = {"dtype": torch.float32} | dict(args.model_init_kwargs or {})
            processing_class = processing_class or saved_tokenizer(model, revision=options.get("revision"))
            model = decoder_with_new_head(model, num_labels=1, **options)
        elif processing_class is None:
            raise ValueError("processing_class: got None with a model in memory, expected its tokenizer")
        make_room_for_tag(model, processing_class)
        self._texts, self._settings = Texts(processing_class, FAMILIES["pair_reward"].tag), args
        pad = processing_class.pad_token_id
        super().__init__(
            model=model,
            args=args,
            data_collator=PairCollator(0 if pad is None else pad),
            train_dataset=None if train_dataset is None else self.encoded(train_dataset),
            eval_dataset=None if eval_dataset is None else self.encoded(eval_dataset),
            processing_class=processing_class,
            compute_metrics=pair_metrics,
            **kwargs,
        )
        self.model_accepts_loss_kwargs = False  # the loss is a mean over the pairs of a micro-batch

    def encoded(self, pairs: Sequence[Pair]) -> Dataset:
        """Token ids of both answers and the widest margin of each pair.

        Pairs whose answers are equal up to ``max_length`` are left out, because they say nothing; a warning counts them
        and those that were cut.

        Raises:
            ValueError: there are no pairs, or none is left.
        """
        if not pairs:
            raise ValueError("got no pairs: expected problems with a right and a wrong answer")
        chosen = [self._ids(pair.prompt, pair.chosen) for pair in pairs]
        rejected = [self._ids(pair.prompt, pair.rejected) for pair in pairs]
        differ = [i for i, ids in enumerate(chosen) if ids != rejected[i]]
        limit = self._settings.max_length
        cut = sum(max(len(chosen[i]), len(rejected[i])) == limit for i in differ)
        if cut or len(differ) < len(pairs):
            lost = f"{len(pairs)} pairs: {len(pairs) - len(differ)} are equal up to max_length={limit} and are left out"
            if not differ:
                raise ValueError(f"{lost}; raise max_length")
            warnings.warn(f"{lost}, {cut} others reach it and may be cut; raise max_length to keep them", stacklevel=2)
        pairs, chosen, rejected = ([side[i] for i in differ] for side in (pairs, chosen, rejected))
        rows = {"chosen_ids": chosen, "rejected_ids": rejected, "widest": self._widest(pairs, chosen, rejected)}
        return Dataset.from_dict(rows)

    def _ids(self, problem: str, steps: list[str]) -> list[int]:
        return FAMILIES["pair_reward"].rendered(self._texts, problem, steps).ids[: self._settings.max_length]

    def _widest(self, pairs: Sequence[Pair], chosen: Sequence[list[int]], rejected: Sequence[list[int]]) -> list[float]:
        settings = self._settings
        if settings.similarity == "random":
            rng = random.Random(f"widest {settings.seed}")
            return [rng.uniform(*RANDOM_WIDEST) for _ in pairs]
        if settings.similarity == "fixed":
            return [FIXED_WIDEST] * len(pairs)
        if settings.similarity == "cosine":
            sides = ([pair.chosen for pair in pairs], [pair.rejected for pair in pairs])
            texts = [["\n\n".join(steps) for steps in side] for side in sides]
            alike = [angle_similarity(c) for c in encoder_cosines(settings.encoder, *texts)]
        else:
            alike = [length_ratio(a, b) for a, b in zip(chosen, rejected, strict=True)]
        return [widest_margin(one, settings.margin_constants) for one in alike]

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ):
        """The mean of the pairs' losses; outputs are the scores of every token (2B, T), chosen rows first."""
        scores = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[..., 0].float()
        chosen, rejected = scores.chunk(2)
        widest = inputs["widest"] if self.args.loss == "pcrm" else None
        loss = losses.pcrm_tokenwise(chosen, rejected, inputs["pair_mask"], widest).mean()
        return (loss, scores) if return_outputs else loss

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Loss, the scores (B, 2) of chosen and rejected answers, and their lengths (B, 2)."""
        inputs = prepared(self, inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, scores = self.compute_loss(model, inputs, return_outputs=True)
        if prediction_loss_only:
            return loss.detach(), None, None
        last = scores.gather(1, inputs["ends"][:, None])[:, 0]
        lengths = inputs["ends"] + 1
        return loss.detach(), *(torch.stack(one.chunk(2), dim=1) for one in (last, lengths))


def pair_metrics(evaluated: EvalPrediction) -> dict[str, float]:
    """Accuracy on pairs, mean margin, spread of the scores, and their correlation with lengths."""
    scores, lengths = np.asarray(evaluated.predictions, float), np.asarray(evaluated.label_ids, float)
    return {
        "accuracy": float((scores[:, 0] > scores[:, 1]).mean()),
        "margin": float((scores[:, 0] - scores[:, 1]).mean()),
        "spread": float(scores.std()),
        "length_correlation": correlation(scores.ravel(), lengths.ravel()),
    }
