"""Trains a PRM that is already scoring: a few updates on labelled rows, rendered and read as in scoring."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rlhf_prm.evaluation.chance import chance_f1
from rlhf_prm.evaluation.processbench import processbench_metrics
from rlhf_prm.prm.batching import collated, token_budget_batches, within_context
from rlhf_prm.prm.protocol import StepScorer
from rlhf_prm.prm.readers import HeadReader
from rlhf_prm.prm.scorer import BatchScorer, PRMScorer
from rlhf_prm.prm.texts import Rendered
from rlhf_prm.prm_training.data import IGNORE, encode_row
from rlhf_prm.prm_training.optimizer import MasterAdamW
from rlhf_prm.prm_training.ranks import Ranks
from rlhf_prm.statistics import auroc, first_error, predicted_first_error

WARMUP = 5  # updates until the learning rate is at its full value
MAX_GRAD_NORM = 1.0
Encoded = tuple[Rendered, list[int]]  # a rendered rollout, cut after its last labelled step, and its labels


def refuse_unteachable(scorer: Any) -> None:
    """Raise a ValueError unless this scorer is a PRM whose weights can be trained in this process."""
    told = "PRM refresh: got "
    if isinstance(scorer, BatchScorer) and not isinstance(scorer, PRMScorer):
        raise ValueError(
            f"{told}a PRM behind a server, whose weights are not in this process; expected placement replicate or "
            "offload. By hand: stop the run, train the PRM on its labelled rollouts (rlhf-prm annotate, then "
            "recipes/train_prm.py on old and new rows), serve the new folder, and continue with "
            "--resume_from_checkpoint true"
        )
    if not isinstance(scorer, PRMScorer):
        raise ValueError(f"{told}{type(scorer).__name__}, which is not a PRM with weights; expected one from load_prm")
    if not hasattr(scorer.placement, "learning"):
        raise ValueError(
            f"{told}placement {type(scorer.placement).__name__.lower()}, whose shards have no optimizer; expected "
            "replicate or offload (offload needs the device's memory while it learns)"
        )
    if not isinstance(scorer.placement.reader, HeadReader):
        raise ValueError(
            f"{told}an implicit PRM, which learns from outcomes and not from step labels; expected a PRM with a head"
        )


def encoded_rows(scorer: PRMScorer, rows: Sequence[dict[str, Any]], *, drop_after_error: bool) -> list[Encoded]:
    """Stepwise rows as this PRM reads them. Rows without a labelled step within its context are left out."""
    encoded = []
    for row in rows:
        one = encode_row(
            row,
            lambda problem, steps: within_context(scorer.family.rendered(scorer.texts, problem, steps), scorer.context),
            drop_after_error=drop_after_error,
            max_length=None,
            soft=False,
        )
        if any(label != IGNORE for label in one["step_labels"]):
            encoded.append((Rendered(one["input_ids"], one["step_ends"], 0), one["step_labels"]))
    return encoded


def go_on_learning(
    scorer: PRMScorer,
    rows: Sequence[dict[str, Any]],
    *,
    updates: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    drop_after_error: bool = True,
    ranks: Ranks | None = None,
) -> float:
    """Train the scorer's weights by cross-entropy on the labels of ``rows``; returns the mean loss of the last epoch.

    AdamW without weight decay, a constant learning rate after a short warm-up, gradients clipped to norm 1; the loss is
    a mean over the labelled steps of an update. Weights in less than float32 are updated through float32 copies. Every
    rank takes its part of every update's rows and the gradients are summed, so that all ranks end with the weights
    that one process would have. The global random state is not touched.

    Raises:
        ValueError: no row has a labelled step within the context.
    """
    ranks = ranks or Ranks()
    encoded = encoded_rows(scorer, rows, drop_after_error=drop_after_error)
    if not encoded:
        raise ValueError(f"PRM refresh: got {len(rows)} rows without one labelled step within the PRM's context")
    order = _batches(len(encoded), batch_size, seed)
    losses = []
    with scorer.placement.learning() as reader:
        step = MasterAdamW(list(reader.parameters()), learning_rate, warmup=WARMUP, max_grad_norm=MAX_GRAD_NORM)
        for _ in range(updates):
            chosen = [encoded[i] for i in next(order)]
            counted = sum(label != IGNORE for _, labels in chosen for label in labels)
            loss = _backward(scorer, reader, chosen[ranks.rank :: ranks.size], counted)
            (total,) = ranks.summed([*step.gradients(), loss])[-1:]
            step()
            losses.append(float(total))
    newest = losses[-max(1, len(encoded) // batch_size) :]
    return sum(newest) / len(newest)


def _batches(rows: int, batch_size: int, seed: int) -> Iterator[list[int]]:
    """Rows in a new random order every epoch, ``batch_size`` at a time (all of them if there are fewer)."""
    rng, batch_size = random.Random(f"rows {seed}"), min(batch_size, rows)
    left: list[int] = []
    while True:
        if len(left) < batch_size:
            left = rng.sample(range(rows), rows)
        yield left[:batch_size]
        left = left[batch_size:]


def _backward(scorer: PRMScorer, reader: nn.Module, chosen: list[Encoded], counted: int) -> Tensor:
    """Add the gradients of these rows' part of the loss, and return that part."""
    device = scorer.placement.device
    part = torch.zeros((), device=device)
    for batch in token_budget_batches([len(one.ids) for one, _ in chosen], scorer.max_batch_tokens):
        inputs = collated([chosen[i][0] for i in batch], scorer.texts.pad_id).to(device)
        labels = torch.tensor([label for i in batch for label in chosen[i][1]], device=device)
        raw = reader(**inputs.tensors()).float()
        log_odds = scorer.calibration.scale * raw + scorer.calibration.shift
        real = labels != IGNORE
        terms = functional.binary_cross_entropy_with_logits(log_odds, (labels == 1).float(), reduction="none")
        loss = torch.where(real, terms, 0.0).sum() / counted
        loss.backward()
        part = part + loss.detach()
    return part


def step_quality(
    scorer: StepScorer, rows: Sequence[dict[str, Any]], *, drop_after_error: bool = True
) -> dict[str, float]:
    """``quality_of`` the scorer's scores on labelled rows."""
    scores = scorer.score([row["prompt"] for row in rows], [list(row["completions"]) for row in rows])
    return quality_of(scores, rows, drop_after_error=drop_after_error)


def quality_of(
    scores: Sequence[Sequence[float]], rows: Sequence[dict[str, Any]], *, drop_after_error: bool = True
) -> dict[str, float]:
    """First-error ``f1`` with ``chance_f1``, and step ``auroc``, of step scores on labelled rows.

    Args:
        drop_after_error: count only the steps up to the first wrong one, as in training.
    """
    predictions, truth, flat_scores, flat_labels = [], [], [], []
    for row, given in zip(rows, scores, strict=True):
        error = first_error(row["labels"])
        kept = error + 1 if drop_after_error and error >= 0 else len(given)
        predictions.append(predicted_first_error(given[:kept]))
        truth.append(error)
        pairs = [(s, t) for s, t in zip(given[:kept], row["labels"][:kept], strict=True) if s == s and t is not None]
        flat_scores += [score for score, _ in pairs]
        flat_labels += [label for _, label in pairs]
    return {
        "f1": processbench_metrics(predictions, truth)["f1"],
        "chance_f1": chance_f1(truth),
        "auroc": auroc(flat_scores, flat_labels),
    }
