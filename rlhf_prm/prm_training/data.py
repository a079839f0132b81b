"""From stepwise-supervision rows to the padded batches that PRMTrainer learns from."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset

from rlhf_prm.statistics import first_error

IGNORE = -100  # transformers' padding of labels
Encoder = Callable[
    [str, list[str]], tuple[list[int], list[int]]
]  # problem, steps → token ids, index of each step's end


def verdict_of(row: Mapping[str, Any]) -> bool:
    """The verifier's verdict on the whole solution: the column ``outcome``, or the labels of the source "outcome".

    Raises:
        ValueError: the row has neither. The last label of another source is not a verdict: steps after a first error
            are labelled wrong whatever the answer is.
    """
    if isinstance(row.get("outcome"), bool):
        return row["outcome"]
    if row.get("source") == "outcome":
        return bool(row["labels"][-1])
    raise ValueError(
        f"target 'outcome' learns the verdict on the final answer, and {row['prompt'][:80]!r} has none (source "
        f"{row.get('source')!r}): expected rows of the source 'outcome', which `rlhf-prm annotate outcome` writes, or "
        "a column outcome with true or false"
    )


def encode_row(
    row: Mapping[str, Any],
    encode: Encoder,
    *,
    drop_after_error: bool,
    max_length: int | None,
    soft: bool,
    target: str = "steps",
    verdict_at: str = "last",
) -> dict[str, Any]:
    """Token ids, the positions of the step ends, and the labels there.

    A step whose label is None, or that is past the end of ``labels``, is unlabelled: the model reads it, without a
    loss. With ``drop_after_error`` the steps after the first wrong one are cut off; so are whole steps past
    ``max_length`` tokens. A row may be left without any step.

    ``first_error`` is that of the whole solution, −1 for none: the number of labelled steps before it, which is past
    the end of ``step_labels`` if it was cut off. ``cut`` says whether ``max_length`` cut off steps.

    Args:
        target: ``"outcome"`` has one label, the verdict, at the end of the last step, and keeps all steps.
        verdict_at: ``"every_step"``: the verdict is the label of every step of an outcome model's row.

    Raises:
        ValueError: there are more labels than steps, a labelled step lacks a soft label that the loss needs, or the row
            lacks a verdict that the target needs.
    """
    steps, labels = list(row["completions"]), list(row["labels"])
    if target == "outcome" and steps:
        verdict, drop_after_error = verdict_of(row), False
        labels = [verdict if verdict_at == "every_step" else None] * (len(steps) - 1) + [verdict]
    if len(labels) > len(steps):
        raise ValueError(f"got {len(labels)} labels for {len(steps)} steps of {row['prompt'][:80]!r}")
    error = first_error([label is None or label for label in labels])
    kept = error + 1 if drop_after_error and error >= 0 else len(steps)
    steps, labels = steps[:kept], labels[:kept]
    before_error = -1 if error < 0 else sum(label is not None for label in labels[:error])
    rendered = encode(row["prompt"], steps)
    fitting = [end for end in rendered.ends if max_length is None or end < max_length]
    labels = (labels + [None] * len(steps))[: len(fitting)]
    encoded = {  # not named "labels": datasets would cast them to booleans, the column's type so far
        "input_ids": rendered.ids[:max_length],
        "step_ends": fitting,
        "step_labels": [IGNORE if label is None else int(label) for label in labels],
        "first_error": before_error,
        "cut": len(fitting) < len(steps),
    }
    if soft:
        encoded["soft_labels"] = _soft_labels(row, labels)
    return encoded | {"length": len(encoded["input_ids"])}


def _soft_labels(row: Mapping[str, Any], labels: list[Any]) -> list[float]:
    given = list(row.get("soft_labels") or [])
    given += [None] * (len(labels) - len(given))
    if any(label is not None and value is None for label, value in zip(labels, given, strict=False)):
        raise ValueError(
            f"loss 'mse' learns soft_labels, but a labelled step of {row['prompt'][:80]!r} has none: annotate with "
            "Monte-Carlo estimation, or train with loss 'ce' on the hard labels"
        )
    return [0.0 if label is None else float(value) for label, value in zip(labels, given, strict=False)]


def encode_dataset(
    dataset: Dataset, encode: Encoder, name: str, num_proc: int | None = None, **options: Any
) -> Dataset:
    """Encode every row by :func:`encode_row`, and drop rows in which no labelled step is left.

    A warning says how many rows were cut or dropped.

    Raises:
        ValueError: a column is missing, or nothing is left to learn from.
    """
    if missing := {"prompt", "completions", "labels"} - set(dataset.column_names):
        raise ValueError(
            f"the {name} dataset lacks {', '.join(sorted(missing))}: expected stepwise-supervision rows with prompt, "
            f"completions (one string per step) and labels (one per step), got {', '.join(dataset.column_names)}"
        )
    encoded = dataset.map(
        lambda row: encode_row(row, encode, **options),
        remove_columns=dataset.column_names,
        desc=f"Tokenizing {name}",
        num_proc=num_proc,
    )
    usable = encoded.filter(lambda row: any(label != IGNORE for label in row["step_labels"]))
    if len(usable) == 0:
        raise ValueError(f"no row of the {name} dataset has a labelled step within max_length={options['max_length']}")
    _warn_of_losses(encoded, usable, name, options["max_length"])
    return usable


def _warn_of_losses(encoded: Dataset, usable: Dataset, name: str, max_length: int | None) -> None:
    lost = []
    if cut := sum(usable["cut"]):
        kept = (sum(label != IGNORE for label in labels) for labels in usable["step_labels"])
        hidden = sum(error >= labelled for error, labelled in zip(usable["first_error"], kept, strict=True))
        lost.append(
            f"{cut} lose their last steps to max_length={max_length}, {hidden} of them their first error, which counts "
            "as missed in an evaluation; raise max_length to keep them"
        )
    if dropped := len(encoded) - len(usable):
        lost.append(f"{dropped} have no labelled step within max_length={max_length} and are left out")
    if lost:
        warnings.warn(f"the {name} dataset has {len(encoded)} rows: {'; '.join(lost)}", stacklevel=3)


def by_length(encoded: Dataset) -> Dataset:
    """Encoded rows in the order of their token counts."""
    lengths = list(encoded["length"])
    return encoded.select(sorted(range(len(lengths)), key=lengths.__getitem__))


@dataclass
class StepCollator:
    """Pads on the right: tokens to (B, T), step ends and labels to (B, K). First errors are (B,)."""

    pad_token_id: int

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = {
            "input_ids": _padded([row["input_ids"] for row in rows], self.pad_token_id),
            "attention_mask": _padded([[1] * len(row["input_ids"]) for row in rows], 0),
            "step_ends": _padded([row["step_ends"] for row in rows], 0),
            "labels": _padded([row["step_labels"] for row in rows], IGNORE),
            "first_errors": torch.tensor([row["first_error"] for row in rows]),
        }
        if "soft_labels" in rows[0]:
            batch["soft_labels"] = _padded([row["soft_labels"] for row in rows], 0.0)
        return batch


def _padded(rows: list[list[Any]], value: float | int) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)
