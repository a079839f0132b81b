"""Pairs of answers to one problem: reading, comparing and padding them for PairTrainer."""

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rlhf_prm.evaluation.samples import SampledProblem
from rlhf_prm.step_data import read_all
from rlhf_prm.steps import StepSplitter

Similarity = Callable[[str, str, Sequence[int], Sequence[int]], float]


@dataclass(frozen=True)
class Pair:
    """A problem, the steps of the better answer, and those of the worse one."""

    prompt: str
    chosen: list[str]
    rejected: list[str]


def read_pairs(path: str | Path, splitter: StepSplitter | None = None) -> list[Pair]:
    """Read rows of ``prompt``, ``chosen`` and ``rejected``; an answer is a list of steps or a text to be cut.

    Raises:
        ValueError: a row lacks one of them; the message names the row.
    """
    splitter = splitter or StepSplitter()
    pairs = []
    for where, row in read_all(path):
        prompt = row.get("prompt")
        if not isinstance(prompt, str) or not prompt.strip():
            raise ValueError(f"{where}: prompt: got {prompt!r:.60}, expected a text")
        steps = []
        for column in ("chosen", "rejected"):
            value = row.get(column)
            if isinstance(value, str) and value.strip():
                value = splitter.split(value)
            if not isinstance(value, list) or not value or not all(isinstance(step, str) for step in value):
                raise ValueError(f"{where}: {column}: got {row.get(column)!r:.60}, expected a text or a list of steps")
            steps.append(value)
        pairs.append(Pair(prompt, *steps))
    return pairs


def pairs_from_samples(samples: Iterable[SampledProblem], most: int = 4, seed: int = 0) -> list[Pair]:
    """Up to ``most`` pairs (right, wrong) of each problem, drawn without repetition; none if it lacks either kind."""
    pairs = []
    for index, sample in enumerate(samples):
        sides: dict[bool, list[list[str]]] = {True: [], False: []}
        for steps, correct in zip(sample.steps, sample.correct, strict=True):
            if steps not in sides[correct]:
                sides[correct].append(steps)
        both = [Pair(sample.problem, right, wrong) for right in sides[True] for wrong in sides[False]]
        random.Random(f"pairs {seed} {index}").shuffle(both)
        pairs += both[:most]
    return pairs


def first_difference(left: Sequence[int], right: Sequence[int]) -> int:
    """The first position at which two rows differ, or the shorter one ends; their length if they are equal."""
    return next((t for t, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def length_ratio(chosen: Sequence[int], rejected: Sequence[int]) -> float:
    """Shorter over longer length, both counted from the first token in which they differ; 1 if both end there."""
    start = first_difference(chosen, rejected)
    shorter, longer = sorted((len(chosen) - start, len(rejected) - start))
    return shorter / longer if longer else 1.0


def angle_similarity(cosine: float) -> float:
    """(π − arccos c)/π of a cosine c, clamped to [0, 1] first: from ½ (unrelated) to 1 (equal)."""
    return (math.pi - math.acos(min(1.0, max(0.0, cosine)))) / math.pi


def encoder_cosines(name: str, left: Sequence[str], right: Sequence[str], batch: int = 32) -> list[float]:
    """The cosine of an encoder's first-token vectors for each pair of texts, cut at its longest input."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(name), AutoModel.from_pretrained(name).eval()
    longest = min(getattr(model.config, "max_position_embeddings", 512), 512)

    def vectors(texts: Sequence[str]) -> torch.Tensor:
        parts = []
        for start in range(0, len(texts), batch):
            inputs = tokenizer(
                list(texts[start : start + batch]),
                padding=True,
                truncation=True,
                max_length=longest,
                return_tensors="pt",
            )
            with torch.no_grad():
                parts.append(model(**inputs).last_hidden_state[:, 0].float())
        return torch.cat(parts)

    return torch.nn.functional.cosine_similarity(vectors(left), vectors(right)).tolist() if left else []


def widest_margin(similarity: float, constants: tuple[float, float, float]) -> float:
    """δ* = β₁/(similarity + β₂) + β₃: the more similar two answers are, the less their scores may differ."""
    scale, smoothing, floor = constants
    return scale / (similarity + smoothing) + floor


@dataclass
class PairCollator:
    """Pads the chosen rows and, after them, the rejected ones to one length, and marks the tokens of the loss.

    ``pair_mask`` (B, T) is True from the first token in which the two differ to the end of the longer; for equal rows
    at the last token only. ``ends`` (2B,) is the last real token of each row.
    """

    pad_token_id: int

    def __call__(self, rows: list[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        ids = [list(row["chosen_ids"]) for row in rows] + [list(row["rejected_ids"]) for row in rows]
        length = max(map(len, ids))
        mask = torch.zeros(len(rows), length, dtype=torch.bool)
        for index, row in enumerate(rows):
            end = max(len(row["chosen_ids"]), len(row["rejected_ids"]))
            mask[index, min(first_difference(row["chosen_ids"], row["rejected_ids"]), end - 1) : end] = True
        return {
            "input_ids": torch.tensor([one + [self.pad_token_id] * (length - len(one)) for one in ids]),
            "attention_mask": torch.tensor([[1] * len(one) + [0] * (length - len(one)) for one in ids]),
            "pair_mask": mask,
            "widest": torch.tensor([float(row["widest"]) for row in rows]),
            "ends": torch.tensor([len(one) - 1 for one in ids]),
        }
