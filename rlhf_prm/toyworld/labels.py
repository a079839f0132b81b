"""From the policy to labelled solutions: sampling, Monte Carlo labels, a judge's labels, and their consensus."""

import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf_prm.annotate.consensus import consensus
from rlhf_prm.annotate.judge import JudgeSettings, judge_task
from rlhf_prm.annotate.monte_carlo import MonteCarloSettings, monte_carlo_task
from rlhf_prm.annotate.outcome import every_step
from rlhf_prm.generation import Generator
from rlhf_prm.generation.drivers import run_batched
from rlhf_prm.generation.tasks import Rejection
from rlhf_prm.statistics import first_error
from rlhf_prm.step_data import StepLabels, labels_from_first_error
from rlhf_prm.steps import StepSplitter
from rlhf_prm.toyworld.checker import CHAINS, Checker
from rlhf_prm.toyworld.judge import FallibleJudge
from rlhf_prm.toyworld.problems import SEPARATOR, ChainProblem
from rlhf_prm.toyworld.sampler import PolicySampler
from rlhf_prm.toyworld.verifier import ExactMatchVerifier

WINDOW = 2000  # solutions annotated at once: many prefixes of equal length, for the sampler


def policy_sampler(policy_path: Path, max_new_tokens: int, progress: str | None = None) -> PolicySampler:
    """A sampler of the policy saved in a folder."""
    policy, tokenizer = AutoModelForCausalLM.from_pretrained(policy_path), AutoTokenizer.from_pretrained(policy_path)
    return PolicySampler(policy, tokenizer, max_new_tokens=max_new_tokens, progress=progress)


def sampled_solutions(
    sampler: PolicySampler, problems: Sequence[ChainProblem], *, seed: int, per_problem: int = 1
) -> list[dict[str, Any]]:
    """Rows of ``prompt``, ``steps`` and the gold ``solution``: ``per_problem`` samples of every problem, adjacent."""
    splitter = StepSplitter(SEPARATOR)
    groups = sampler.generate([problem.prompt for problem in problems], per_problem, seed=seed)
    return [
        {"prompt": problem.prompt, "steps": splitter.split(text), "solution": problem.solution}
        for problem, group in zip(problems, groups, strict=True)
        for text in group
    ]


def monte_carlo_labels(
    rows: Sequence[dict[str, Any]], sampler: Generator, *, num_completions: int, seed: int
) -> list[StepLabels | Rejection]:
    """Labels by completions from every step prefix, up to the first step without a hit.

    Prefixes go to the policy as text. Its tokenizer turns them into exactly the ids that were sampled.
    """
    settings = MonteCarloSettings(num_completions=num_completions, separator=SEPARATOR, seed=seed)
    tasks = (
        (i, monte_carlo_task(i, row["prompt"], row["steps"], row["solution"], settings)) for i, row in enumerate(rows)
    )
    finished = run_batched(tasks, sampler, ExactMatchVerifier(), window=WINDOW)
    return _in_order(finished, len(rows), "PRM: Monte-Carlo labels")


def judged_labels(
    rows: Sequence[dict[str, Any]], *, flips: float, seed: int, votes: int = 1, checker: Checker = CHAINS
) -> list[StepLabels | Rejection]:
    """Labels by the fallible judge, asked ``votes`` times; a tie of the votes is a rejection."""
    settings = JudgeSettings(seed=seed, votes=votes)
    tasks = ((i, judge_task(i, row["prompt"], row["steps"], settings)) for i, row in enumerate(rows))
    finished = run_batched(tasks, FallibleJudge(flips, seed, checker), window=WINDOW)
    return _in_order(finished, len(rows), "PRM: judge")


def confirmed_labels(
    rows: Sequence[dict[str, Any]],
    judged: Sequence[StepLabels | Rejection],
    sampler: Generator,
    *,
    num_completions: int,
    seed: int,
) -> list[StepLabels | Rejection]:
    """The judge's labels that the verifier does not contradict, at the cost of one Monte Carlo prefix per solution.

    A first error is kept when none of ``num_completions`` completions of the steps up to and including it ends right;
    "no error" is kept when the answer is right. A judge that is always mistaken about a line is contradicted by the
    completions that continue from there to the right answer. The consensus with Monte Carlo labels needs more, the same
    first error from both, and keeps little if a policy seldom ends right even from right steps.
    """
    flagged = [i for i, one in enumerate(judged) if isinstance(one, StepLabels) and one.first_error >= 0]
    prefixes = [
        rows[i]["prompt"] + SEPARATOR.join(rows[i]["steps"][: judged[i].first_error + 1]) + SEPARATOR for i in flagged
    ]
    seeds = [random.Random(f"confirm {seed} {i}").getrandbits(63) for i in flagged]
    completions = dict(zip(flagged, sampler.generate(prefixes, num_completions, seed=seeds), strict=True))
    confirmed: list[StepLabels | Rejection] = []
    for i, (row, one) in enumerate(zip(rows, judged, strict=True)):
        if isinstance(one, Rejection):
            confirmed.append(one)
            continue
        texts = completions.get(i, [SEPARATOR.join(row["steps"])])
        right = sum(
            verdict.reward == 1.0 for verdict in ExactMatchVerifier().verify(texts, [row["solution"]] * len(texts))
        )
        contradicted = right > 0 if i in completions else right == 0
        confirmed.append(Rejection(f"contradicted: {right} of {len(texts)} right") if contradicted else one)
    return confirmed


def gold_labels(rows: Sequence[dict[str, Any]], checker: Checker = CHAINS) -> list[StepLabels]:
    """Labels by the exact checker."""
    errors = [first_error(checker.labels(row["prompt"], row["steps"])) for row in rows]
    return [labels_from_first_error(e, len(row["steps"]), "gold") for e, row in zip(errors, rows, strict=True)]


def outcome_labels(rows: Sequence[dict[str, Any]]) -> list[StepLabels]:
    """The exact verdict on the answer, at every step; an outcome reward model learns the last of them."""
    texts, golds = [SEPARATOR.join(row["steps"]) for row in rows], [row["solution"] for row in rows]
    verdicts = [verdict.reward == 1.0 for verdict in ExactMatchVerifier().verify(texts, golds)]
    return [every_step(right, len(row["steps"])) for right, row in zip(verdicts, rows, strict=True)]


def stepwise_rows(rows: Sequence[dict[str, Any]], labels: Sequence[StepLabels | Rejection]) -> list[dict[str, Any]]:
    """Stepwise-supervision rows of the solutions that have labels."""
    pairs = zip(rows, labels, strict=True)
    return [one.row(row["prompt"], row["steps"]) for row, one in pairs if isinstance(one, StepLabels)]


def agreed_labels(
    monte_carlo: Sequence[StepLabels | Rejection], judged: Sequence[StepLabels | Rejection]
) -> tuple[list[StepLabels | Rejection], dict[str, Any]]:
    """The consensus of the two, and its report."""
    labels, report = consensus(list(monte_carlo), list(judged))
    return labels, report.as_dict()


def _in_order(finished: Iterable[tuple[int, Any]], total: int, description: str) -> list[Any]:
    results = dict(tqdm(finished, total=total, desc=description, unit="solution"))
    return [results[i] for i in range(total)]
