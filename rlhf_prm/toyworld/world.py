"""build_world: problems, an imperfect policy and a process reward model for it, each stage cached."""

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_prm.toyworld.demonstrator import Demonstrator
from rlhf_prm.toyworld.evaluate import evaluate_policy
from rlhf_prm.toyworld.policy import save_policy, supervised_policy
from rlhf_prm.toyworld.problems import Problem, draw_splits
from rlhf_prm.toyworld.settings import ToyWorldSettings
from rlhf_prm.toyworld.stages import Stage, StageCache
from rlhf_prm.toyworld.tokenizer import toy_tokenizer


@dataclass(frozen=True)
class ToyWorld:
    """A built world.

    Args:
        policy_path: a checkpoint for ``AutoModelForCausalLM`` and ``AutoTokenizer``.
        train_dataset: ``prompt`` and ``solution`` (the gold digit, or None where the world keeps it back).
        eval_dataset: held-out problems, every one with its ``solution``.
        stages: what was built or found, by name.
    """

    settings: ToyWorldSettings
    policy_path: Path
    train_dataset: Dataset
    eval_dataset: Dataset
    stages: dict[str, Stage]

    @property
    def seconds(self) -> dict[str, float]:
        """What building each stage took, also where it was found in the cache."""
        return {name: stage.seconds for name, stage in self.stages.items()}

    @property
    def cached(self) -> dict[str, bool]:
        """Whether each stage was found in the cache."""
        return {name: stage.cached for name, stage in self.stages.items()}

    def evaluate(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, seed: int = 0
    ) -> dict[str, float]:
        """``accuracy`` and ``process_accuracy`` of a policy on the held-out problems, one sample each."""
        limit = self.settings.max_completion_length
        return evaluate_policy(model, tokenizer, self.eval_dataset["prompt"], max_new_tokens=limit, seed=seed)


def problem_splits(settings: ToyWorldSettings) -> dict[str, list[Problem]]:
    """The world's problems: disjoint lists for ``eval``, ``sft``, ``labelled`` (for the PRM) and ``train``."""
    sizes = {
        "eval": settings.eval_problems,
        "sft": settings.sft_updates * settings.sft_batch,
        "labelled": settings.labelled_solutions,
        "train": settings.train_problems,
    }
    return draw_splits(settings.seed, settings.operations, sizes)


def build_world(settings: ToyWorldSettings, root: str | os.PathLike[str] = "runs/cache") -> ToyWorld:
    """The world these settings describe: stages already under ``root`` are reused, the others are built."""
    cache, splits = StageCache(root), problem_splits(settings)
    policy = _policy_stage(cache, settings, splits["sft"])
    return ToyWorld(
        settings=settings,
        policy_path=policy.path,
        train_dataset=_dataset(splits["train"], settings.gold_fraction, settings.seed),
        eval_dataset=_dataset(splits["eval"]),
        stages={"policy": policy},
    )


POLICY_SETTINGS = (
    *("seed", "filler", "long_chains", "eval_problems"),
    *("sft_updates", "sft_batch", "sft_learning_rate"),
)


def _policy_stage(cache: StageCache, settings: ToyWorldSettings, problems: Sequence[Problem]) -> Stage:
    return cache.stage("policy", settings.subset(*POLICY_SETTINGS), partial(_build_policy, settings, problems))


def _build_policy(settings: ToyWorldSettings, problems: Sequence[Problem], folder: Path) -> None:
    tokenizer = toy_tokenizer()
    policy = supervised_policy(
        tokenizer,
        problems,
        Demonstrator(settings.seed, settings.filler),
        seed=settings.seed,
        batch_size=settings.sft_batch,
        learning_rate=settings.sft_learning_rate,
    )
    save_policy(policy, tokenizer, folder)


def _dataset(problems: Sequence[Problem], gold_fraction: float = 1.0, seed: int = 0) -> Dataset:
    with_gold = round(gold_fraction * len(problems))
    kept = set(random.Random(f"gold {seed}").sample(range(len(problems)), with_gold))
    solutions = [problem.solution if index in kept else None for index, problem in enumerate(problems)]
    return Dataset.from_dict({"prompt": [problem.prompt for problem in problems], "solution": solutions})
