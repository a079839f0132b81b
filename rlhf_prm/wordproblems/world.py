"""build_world: problems, a fine-tuned language model, labelled solutions and a PRM, each stage cached."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from rlhf_prm.files import read_json, read_json_lines, write_json
from rlhf_prm.generation.prompts import prompt_ids
from rlhf_prm.prompts import keep_gold
from rlhf_prm.steps import StepSplitter
from rlhf_prm.tokenizer_checks import saved_tokenizer
from rlhf_prm.toyworld.label_stages import ROWS
from rlhf_prm.toyworld.labels import gold_labels, stepwise_rows
from rlhf_prm.toyworld.policy import IGNORED, fine_tune
from rlhf_prm.toyworld.problems import SEPARATOR
from rlhf_prm.toyworld.reward_model import train_reward_model
from rlhf_prm.toyworld.stages import Stage, StageCache
from rlhf_prm.toyworld.verifier import final_answer
from rlhf_prm.wordproblems.base_model import save_base
from rlhf_prm.wordproblems.checker import WORDS, process_correct
from rlhf_prm.wordproblems.kept_memory import keep_freed_memory
from rlhf_prm.wordproblems.label_stages import label_stages, messages, sampled_rows
from rlhf_prm.wordproblems.problems import WordProblem, draw_splits
from rlhf_prm.wordproblems.sampler import ATTENTION, TextSampler, load_policy
from rlhf_prm.wordproblems.settings import WordWorldSettings

ACCURACY = "accuracy.json"
PRM_SETTINGS = (
    *("seed", "prm_updates", "prm_batch", "prm_learning_rate", "prm_held_out", "prm_eval_every", "prm_patience"),
    "frozen_layers",
)


@dataclass(frozen=True)
class WordWorld:
    """A built world.

    Args:
        policy_path: the fine-tuned language model, for ``AutoModelForCausalLM`` and ``saved_tokenizer``.
        prm_path: a process reward model for ``load_prm``; None where it was not asked for.
        train_dataset, eval_dataset: ``prompt`` (messages), ``problem`` (its text) and ``solution`` (the gold answer).
        stages: what was built or found, by name.
    """

    settings: WordWorldSettings
    policy_path: Path
    prm_path: Path | None
    train_dataset: Dataset
    eval_dataset: Dataset
    stages: dict[str, Stage]

    @property
    def seconds(self) -> dict[str, float]:
        """What building each stage took, also where it was found in the cache."""
        return {name: stage.seconds for name, stage in self.stages.items()}

    def evaluate(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        limit: int | None = None,
        seed: int = 0,
    ) -> dict[str, float]:
        """``accuracy`` and ``process_accuracy`` of a policy on held-out problems, one seeded sample each."""
        problems = self.eval_dataset["problem"][:limit]
        sampler = TextSampler(model, tokenizer, max_new_tokens=self.settings.max_completion_length)
        texts = [group[0] for group in sampler.generate([messages(problem) for problem in problems], seed=seed)]
        return evaluate_completions([WordProblem.parse(problem) for problem in problems], texts)

    def start_accuracy(self, limit: int | None = None) -> dict[str, float]:
        """``evaluate`` of the policy that RL starts from: a stage, measured once for all runs of the world."""
        policy = self.stages["policy"]
        needed = {"limit": limit, **self.settings.subset("max_completion_length")}
        cache, build = StageCache(policy.path.parent), partial(self._measure_start, limit)
        return read_json(cache.stage("start_accuracy", needed, build, (policy,)).path / ACCURACY)

    def _measure_start(self, limit: int | None, folder: Path) -> None:
        write_json(folder / ACCURACY, self.evaluate(*load_policy(self.policy_path), limit=limit))

    def held_out_solutions(self, problems: int, per_problem: int = 1, *, seed: int = 0) -> list[dict[str, Any]]:
        """The starting policy's solutions of held-out problems: stepwise rows with exact labels, and ``solution``.

        The ``per_problem`` solutions of a problem are adjacent.
        """
        sampler = TextSampler(*load_policy(self.policy_path), max_new_tokens=self.settings.max_completion_length)
        chosen = [WordProblem.parse(problem) for problem in self.eval_dataset["problem"][:problems]]
        rows = sampled_rows(sampler, chosen, seed=seed, per_problem=per_problem)
        labelled = stepwise_rows(rows, gold_labels(rows, WORDS))
        return [{**one, "solution": row["solution"]} for one, row in zip(labelled, rows, strict=True)]


def evaluate_completions(problems: Sequence[WordProblem], completions: Sequence[str]) -> dict[str, float]:
    """``accuracy`` (share of right answers) and ``process_accuracy`` (share with a right answer and every step right)
    of one completion per problem."""
    splitter = StepSplitter(SEPARATOR)
    pairs = list(zip(problems, completions, strict=True))
    right = [final_answer(text) == problem.solution for problem, text in pairs]
    process = [process_correct(problem, splitter.split(text)) for problem, text in pairs]
    return {"accuracy": sum(right) / len(pairs), "process_accuracy": sum(process) / len(pairs)}


def build_world(
    settings: WordWorldSettings,
    root: str | os.PathLike[str] = "runs/cache",
    *,
    with_prm: bool = True,
    gold_fraction: float = 1.0,
) -> WordWorld:
    """The world these settings describe: stages already under ``root`` are reused, the others are built.

    From then on this process keeps the memory it frees (``keep_freed_memory``): what is trained in such a world is
    trained on a CPU.

    Args:
        with_prm: False leaves the PRM and its labels out.
        gold_fraction: share of the training problems that keep their gold answer.

    Raises:
        ValueError: called on one of several ranks.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("world word_problems: got several processes, expected one (--num_processes 1)")
    keep_freed_memory()
    cache = StageCache(root)
    sizes = {
        "eval": settings.eval_problems,
        "sft": settings.sft_updates * settings.sft_batch,
        "labelled": settings.labelled_solutions,
        "train": settings.train_problems,
    }
    splits = draw_splits(settings.seed, sizes)
    base = cache.stage("base", settings.subset("model"), partial(save_base, settings.model))
    learnt = settings.subset("seed", "sft_updates", "sft_batch", "sft_learning_rate", "eval_problems")
    policy = cache.stage("policy", learnt, partial(_build_policy, settings, splits["sft"], base.path), (base,))
    stages = {"base": base, "policy": policy}
    if with_prm:
        stages |= label_stages(cache, settings, policy, splits["labelled"])
        build = partial(_build_prm, settings, policy.path, stages["labels"].path)
        stages["prm"] = cache.stage("prm", settings.subset(*PRM_SETTINGS), build, (policy, stages["labels"]))
    return WordWorld(
        settings=settings,
        policy_path=policy.path,
        prm_path=stages["prm"].path if with_prm else None,
        train_dataset=keep_gold(_dataset(splits["train"]), gold_fraction, settings.seed),
        eval_dataset=_dataset(splits["eval"]),
        stages=stages,
    )


def _build_policy(settings: WordWorldSettings, problems: Sequence[WordProblem], base: Path, folder: Path) -> None:
    tokenizer = saved_tokenizer(base, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation=ATTENTION)
    rows = []
    for problem in problems:
        asked = prompt_ids(tokenizer, messages(problem.text))
        answer = tokenizer(SEPARATOR.join(problem.gold_steps), add_special_tokens=False)["input_ids"]
        learned = [*answer, tokenizer.eos_token_id]
        rows.append(([*asked, *learned], [IGNORED] * len(asked) + learned))
    fine_tune(
        model,
        rows,
        batch_size=settings.sft_batch,
        learning_rate=settings.sft_learning_rate,
        pad_token_id=tokenizer.pad_token_id,
        half_precision=True,
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _build_prm(settings: WordWorldSettings, policy_path: Path, labelled: Path, folder: Path) -> None:
    train_reward_model(
        policy_path,
        read_json_lines(labelled / ROWS),
        folder,
        seed=settings.seed,
        updates=settings.prm_updates,
        batch_size=settings.prm_batch,
        learning_rate=settings.prm_learning_rate,
        held_out=settings.prm_held_out,
        eval_every=settings.prm_eval_every,
        patience=settings.prm_patience,
        frozen_layers=settings.frozen_layers,
        bf16=True,
        gradient_checkpointing=False,
        model_init_kwargs={"attn_implementation": ATTENTION},
    )


def _dataset(problems: Sequence[WordProblem]) -> Dataset:
    return Dataset.from_dict(
        {
            "prompt": [messages(problem.text) for problem in problems],
            "problem": [problem.text for problem in problems],
            "solution": [problem.solution for problem in problems],
        }
    )
