"""Finds datasets that a trainer could not learn from, before a model is loaded."""

from collections.abc import Mapping
from typing import Any

from trl import GRPOConfig

from reward.reward_functions import gold_text


def check_datasets(
    args: GRPOConfig,
    train_dataset: Any,
    eval_dataset: Any,
    *,
    verified: bool,
    needs_gold: bool,
    with_tools: bool = False,
    environments: bool = False,
) -> None:
    """Check the row counts and columns that the trainer needs; a streamed dataset is checked for columns only.

    Args:
        eval_dataset: one dataset, a mapping of them, or None.
        verified: whether a verifier will read the ``solution`` column.
        needs_gold: whether the verdict on gold answers is the only signal.
        with_tools: whether the policy calls tools, which needs messages.
        environments: whether there are environments, which may supply the prompt themselves;
            without a dataset TRL asks them for every prompt.

    Raises:
        ValueError: the training dataset is missing, empty or too small for a generation batch; a column is missing; a
            gold answer is neither text nor a number; or there is no gold answer although ``needs_gold``.
    """
    if train_dataset is None and not environments:
        raise ValueError("train_dataset: got None, expected a dataset with a `prompt` column")
    if train_dataset is None and verified:
        raise ValueError(
            "train_dataset: got None beside a verifier, expected a dataset with `solution`; an environment that brings "
            "its own problems pays by get_reward"
        )
    if train_dataset is not None:
        _check_columns("train_dataset", train_dataset, verified, with_tools, environments)
    held_out = eval_dataset if isinstance(eval_dataset, Mapping) else {"": eval_dataset}
    for name, dataset in held_out.items():
        if dataset is not None:
            _check_columns(f"eval_dataset {name}".strip(), dataset, verified, with_tools, environments)
    if not hasattr(train_dataset, "__len__"):
        return
    prompts = args.generation_batch_size // args.num_generations
    if len(train_dataset) < prompts:
        raise ValueError(
            f"train_dataset: got {len(train_dataset)} prompts, expected at least the {prompts} of one generation batch "
            f"(generation_batch_size {args.generation_batch_size} / num_generations {args.num_generations}); with "
            "fewer there would be no update at all"
        )
    if verified and needs_gold and all(gold_text(gold) is None for gold in train_dataset["solution"]):
        raise ValueError(
            f"train_dataset: got no gold answer in {len(train_dataset)} rows of `solution`, expected some: "
            "outcome-only training learns from nothing else"
        )


def _check_columns(label: str, dataset: Any, verified: bool, with_tools: bool, environments: bool) -> None:
    if hasattr(dataset, "__len__") and not len(dataset):
        raise ValueError(f"{label}: got no rows, expected at least one prompt")
    columns = getattr(dataset, "column_names", None)
    if not columns:
        return
    if "prompt" not in columns and not environments:
        raise ValueError(f"{label}: got columns {columns}, expected `prompt` with texts or messages; rename yours")
    if verified and "solution" not in columns:
        raise ValueError(f"{label}: got columns {columns}, expected `solution` with the gold answer; rename yours")
    if verified and hasattr(dataset, "__len__"):
        gold_text(dataset[0]["solution"])  # a column has one type, so the first row is enough
    if with_tools and "prompt" in columns and hasattr(dataset, "__len__") and isinstance(dataset[0]["prompt"], str):
        raise ValueError(f"{label}: got texts as `prompt` beside tools, expected messages: tools are called in a chat")


def refuse_without_gold(dataset: Any, needed_by: str) -> None:
    """Raise a ValueError if a training set (not a stream) has no gold answer, so that nothing could be verified."""
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "column_names"):
        return
    if all(gold_text(gold) is None for gold in dataset["solution"]):
        raise ValueError(
            f"{needed_by}: got no gold answer in {len(dataset)} rows of `solution`, expected some, as completions are "
            "verified against them"
        )
