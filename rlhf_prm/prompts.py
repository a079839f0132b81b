"""Loads prompts with gold answers, from the Hub or from local files, with any column names."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset

from reward.reward_functions import gold_text
from rlhf_prm.columns import PROBLEM_COLUMNS, SOLUTION_COLUMNS, column_of

_LOCAL = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}


def load_prompts(
    source: str,
    *,
    columns: dict[str, str] | None = None,
    usual_prompts: Sequence[str] = ("prompt", *PROBLEM_COLUMNS),
    config: str | None = None,
    split: str = "train",
    chat: bool = False,
    system_prompt: str | None = None,
    limit: int | None = None,
) -> Dataset:
    """A dataset with ``prompt``, ``problem`` and ``solution`` (and nothing else) for the trainers.

    Args:
        source: a local ``.jsonl``, ``.json``, ``.parquet`` or ``.csv`` file, a folder that ``datasets`` saved, or a Hub
            name.
        columns: our name → theirs, e.g. ``{"prompt": "query", "solution": "target"}``, where they are not called
            ``prompt``, ``problem`` or ``question``, and ``solution`` or ``answer`` (``rlhf_prm.columns``). ``prompt``
            may hold text or messages. ``solution`` may be any text with the gold answer (a worked one too), a number,
            or null.
        usual_prompts: where the prompt is looked for when ``columns`` does not say.
        config, split: of the Hub dataset.
        chat: turn text prompts into a user message, after ``system_prompt`` where given.
        limit: the first so many rows only.

    Raises:
        ValueError: ``source`` is not found or has no rows, a column is missing (the message lists the columns),
            or a gold answer is neither text nor a number.
    """
    dataset = _load(source, config, split)
    names = _column_names(source, dataset.column_names, columns or {}, usual_prompts)
    if limit is not None:
        dataset = dataset.select(range(min(limit, len(dataset))))
    if not len(dataset):
        raise ValueError(f"dataset {source}: got no rows (limit {limit}), expected at least one prompt")

    def ours(row: Mapping[str, Any]) -> dict[str, Any]:
        prompt = row[names["prompt"]]
        problem = row[names["problem"]] if "problem" in names else last_user_message(prompt)
        if chat and isinstance(prompt, str):
            prompt = [{"role": "user", "content": prompt}]
            if system_prompt:
                prompt = [{"role": "system", "content": system_prompt}, *prompt]
        return {"_prompt": prompt, "_problem": problem, "_solution": gold_text(row[names["solution"]])}

    # Fresh names: a column that keeps its name keeps its old type too, and a gold answer may be a number there.
    mapped = dataset.map(ours, remove_columns=dataset.column_names, desc="prompts")
    return mapped.rename_columns({name: name[1:] for name in mapped.column_names})


def keep_gold(dataset: Dataset, fraction: float, seed: int) -> Dataset:
    """``dataset`` with the ``solution`` of a random share of 1 − ``fraction`` of its rows removed.

    Raises:
        ValueError: ``fraction`` outside [0, 1].
    """
    if not 0.0 <= fraction <= 1.0:
        raise ValueError(f"gold_fraction: got {fraction}, expected a share between 0 and 1")
    if fraction == 1.0:
        return dataset
    kept = set(random.Random(seed).sample(range(len(dataset)), round(fraction * len(dataset))))
    solutions = [gold if i in kept else None for i, gold in enumerate(dataset["solution"])]
    return dataset.remove_columns("solution").add_column("solution", solutions)


def _column_names(
    source: str, available: list[str], columns: dict[str, str], usual_prompts: Sequence[str]
) -> dict[str, str]:
    """Our name → theirs, as they are named or as they usually are."""
    usual = {"prompt": usual_prompts, "solution": SOLUTION_COLUMNS}
    if unknown := columns.keys() - {"prompt", "problem", "solution"}:
        raise ValueError(f"columns: got {', '.join(sorted(unknown))}, expected some of prompt, problem, solution")
    try:
        found = {ours: column_of(available, columns.get(ours), names, ours) for ours, names in usual.items()}
        return found | {ours: column_of(available, theirs, (), ours) for ours, theirs in columns.items()}
    except ValueError as error:
        raise ValueError(
            f"dataset {source}: {error}. Map them: columns={{'prompt': 'question', 'solution': 'answer'}}"
        ) from error


def _load(source: str, config: str | None, split: str) -> Dataset:
    path = Path(source)
    if path.is_dir():
        from datasets import load_from_disk

        loaded = load_from_disk(source)
        return loaded[split] if not isinstance(loaded, Dataset) else loaded
    if path.suffix in _LOCAL:
        if not path.is_file():
            raise ValueError(f"dataset: no file at {source}")
        try:
            return load_dataset(_LOCAL[path.suffix], data_files=source, split="train")
        except Exception as error:  # StopIteration for an empty file, and several of its own for a broken one
            kind = f"{type(error.__cause__ or error).__name__}: {error.__cause__ or error}".splitlines()[0]
            raise ValueError(f"dataset {source} is empty or cannot be read as {path.suffix[1:]} ({kind})") from error
    try:
        return load_dataset(source, config, split=split)
    except Exception as error:
        raise ValueError(
            f"dataset {source!r}: neither a local .jsonl/.json/.parquet/.csv file or folder, nor loadable from the Hub "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
        ) from error


def last_user_message(prompt) -> str:
    """The last user message of a chat; a text is returned as it is."""
    if isinstance(prompt, str):
        return prompt
    return next((message["content"] for message in reversed(prompt) if message["role"] == "user"), "")
