"""build_world: problems, an imperfect policy and a process reward model for it, each stage cached."""

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_prm.files import read_json_lines
from rlhf_prm.toyworld.apart import found_or_built_apart, is_one_of_several
from rlhf_prm.toyworld.demonstrator import WRONG_FACTS, Demonstrator
from rlhf_prm.toyworld.evaluate import evaluate_policy
from rlhf_prm.toyworld.label_stages import ROWS, label_stages
from rlhf_prm.toyworld.labels import gold_labels, policy_sampler, sampled_solutions, stepwise_rows
from rlhf_prm.toyworld.policy import save_policy, supervised_policy
from rlhf_prm.toyworld.problems import ChainProblem, draw_splits
from rlhf_prm.toyworld.reward_model import train_reward_model
from rlhf_prm.toyworld.settings import ToyWorldSettings
from rlhf_prm.toyworld.stages import Stage, StageCache
from rlhf_prm.toyworld.tokenizer import toy_tokenizer

POLICY_SETTINGS = (
    *("seed", "filler", "long_chains", "eval_problems"),
    *("sft_updates", "sft_batch", "sft_learning_rate"),
)
PRM_SETTINGS = (
    *("seed", "prm_rows", "prm_updates", "prm_batch", "prm_learning_rate"),
    *("prm_held_out", "prm_eval_every", "prm_patience"),
)


@dataclass(frozen=True)
class ToyWorld:
    """A built world.

    Args:
        policy_path: a checkpoint for ``AutoModelForCausalLM`` and ``AutoTokenizer``.
        prm_path: a process reward model for ``load_prm``; None if it was not built.
        train_dataset: ``prompt`` and ``solution`` (the gold digit, or None if the world withholds it).
        eval_dataset: held-out problems, every one with its ``solution``.
        stages: what was built or found, by name; ``stages["labels"].path / "rows.jsonl"`` are the PRM's training rows.
    """

    settings: ToyWorldSettings
    policy_path: Path
    prm_path: Path | None
    train_dataset: Dataset
    eval_dataset: Dataset
    stages: dict[str, Stage]

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds that building each stage took, also for stages found in the cache."""
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

    def held_out_solutions(self, problems: int, per_problem: int = 1, *, seed: int = 0) -> list[dict[str, Any]]:
        """The starting policy's solutions of held-out problems: stepwise rows with exact labels, and ``solution``.

        The ``per_problem`` solutions of a problem are adjacent.
        """
        sampler = policy_sampler(self.policy_path, self.settings.max_completion_length)
        chosen = [ChainProblem.parse(prompt) for prompt in self.eval_dataset["prompt"][:problems]]
        rows = sampled_solutions(sampler, chosen, seed=seed, per_problem=per_problem)
        labelled = stepwise_rows(rows, gold_labels(rows))
        return [{**one, "solution": row["solution"]} for one, row in zip(labelled, rows, strict=True)]


def problem_splits(settings: ToyWorldSettings) -> dict[str, list[ChainProblem]]:
    """The world's problems: disjoint lists for ``eval``, ``sft``, ``labelled`` (for the PRM) and ``train``."""
    sizes = {
        "eval": settings.eval_problems,
        "sft": settings.sft_updates * settings.sft_batch,
        "labelled": settings.labelled_solutions,
        "train": settings.train_problems,
    }
    return draw_splits(settings.seed, settings.operations, sizes)


def build_world(
    settings: ToyWorldSettings,
    root: str | os.PathLike[str] = "runs/cache",
    *,
    with_prm: bool = True,
    with_labels: bool = True,
) -> ToyWorld:
    """The world these settings describe: stages already under ``root`` are reused, the others are built.

    ``with_prm=False`` leaves the PRM out, to train one on the world's labels yourself;
    ``with_labels=False`` also leaves the labelled solutions out.

    One of several ranks has it built by a process of its own and the others wait for it (``apart``). Every stage is
    then found (``cached``).
    """
    world_in = partial(_world_in, settings=settings, with_prm=with_prm, with_labels=with_labels)
    if is_one_of_several():
        left_out = {"--without-prm": not with_prm, "--without-labels": not with_labels}
        return found_or_built_apart(world_in, settings, root, *[flag for flag, out in left_out.items() if out])
    return world_in(StageCache(root))


def _world_in(cache: StageCache, *, settings: ToyWorldSettings, with_prm: bool, with_labels: bool) -> ToyWorld:
    splits = problem_splits(settings)
    policy_settings = settings.subset(*POLICY_SETTINGS)
    if settings.wrong_facts != WRONG_FACTS:  # named only if it is not the default, so that older caches stay valid
        policy_settings |= settings.subset("wrong_facts")
    policy = cache.stage("policy", policy_settings, partial(_build_policy, settings, splits["sft"]))
    stages = {"policy": policy}
    if with_labels or with_prm:
        stages |= label_stages(cache, settings, policy, splits["labelled"])
    if with_prm:
        build = partial(_build_prm, settings, policy.path, stages["labels"].path)
        stages["prm"] = cache.stage("prm", settings.subset(*PRM_SETTINGS), build, (policy, stages["labels"]))
    return ToyWorld(
        settings=settings,
        policy_path=policy.path,
        prm_path=stages["prm"].path if with_prm else None,
        train_dataset=_dataset(splits["train"], settings.gold_fraction, settings.seed),
        eval_dataset=_dataset(splits["eval"]),
        stages=stages,
    )


def _build_policy(settings: ToyWorldSettings, problems: Sequence[ChainProblem], folder: Path) -> None:
    tokenizer = toy_tokenizer()
    policy = supervised_policy(
        tokenizer,
        problems,
        Demonstrator(settings.seed, settings.filler, settings.wrong_facts),
        seed=settings.seed,
        batch_size=settings.sft_batch,
        learning_rate=settings.sft_learning_rate,
    )
    save_policy(policy, tokenizer, folder)


def _build_prm(settings: ToyWorldSettings, policy_path: Path, labelled: Path, folder: Path) -> None:
    train_reward_model(
        policy_path,
        read_json_lines(labelled / ROWS)[: settings.prm_rows],
        folder,
        seed=settings.seed,
        updates=settings.prm_updates,
        batch_size=settings.prm_batch,
        learning_rate=settings.prm_learning_rate,
        held_out=settings.prm_held_out,
        eval_every=settings.prm_eval_every,
        patience=settings.prm_patience,
        target="outcome" if settings.label_source == "outcome" else "steps",
    )


def _dataset(problems: Sequence[ChainProblem], gold_fraction: float = 1.0, seed: int = 0) -> Dataset:
    with_gold = round(gold_fraction * len(problems))
    kept = set(random.Random(f"gold {seed}").sample(range(len(problems)), with_gold))
    solutions = [problem.solution if index in kept else None for index, problem in enumerate(problems)]
    return Dataset.from_dict({"prompt": [problem.prompt for problem in problems], "solution": solutions})
