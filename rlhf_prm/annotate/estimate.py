"""Estimates the remaining cost of a stage, in calls and tokens, before it starts."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rlhf_prm.annotate.config import AnnotateConfig
from rlhf_prm.annotate.items import BadRow, Solution
from rlhf_prm.annotate.stages import JudgeStage, MonteCarloStage, SampleStage, Stage
from rlhf_prm.annotate.store import Shards, by_id
from rlhf_prm.judges.budget import CHARACTERS_PER_TOKEN

ASSUMED_RESPONSE = 400  # tokens of a response, while none is known
ASSUMED_STEPS = 8  # of a response, while none is known
JUDGED_LENGTH = 2.0  # tokens a judge writes per token of the solution
JUDGE_PROMPT = 250  # tokens of the instructions


@dataclass
class Estimate:
    """The remaining cost of one stage. Tokens are counted as characters / 3.5.

    Attributes:
        rows, done: all rows of the stage, and the finished ones, including those set aside.
        calls: the most calls; Monte Carlo stops at the first step without a hit.
        prompt_tokens: the most, if every prompt is read in full.
        new_prompt_tokens: the same if a prefix cache keeps the prompt of the solution's last call.
        completion_tokens: the expected number, if completions are as long as the text they replace.
        most_completion_tokens: the number if every completion reaches max_tokens.
        assumed: whether rows, steps and lengths are guesses, because the previous stage has not run.
    """

    stage: str
    rows: int = 0
    done: int = 0
    calls: int = 0
    prompt_tokens: float = 0.0
    new_prompt_tokens: float = 0.0
    completion_tokens: float = 0.0
    most_completion_tokens: float = 0.0
    assumed: bool = False

    def add_call(self, prompt: float, new: float, completion: float, most: float) -> None:
        """Count one call, in tokens."""
        self.calls += 1
        self.prompt_tokens += prompt
        self.new_prompt_tokens += new
        self.completion_tokens += min(completion, most)
        self.most_completion_tokens += most


def estimate(stage: Stage, rows: Iterable[Any], shards: Shards, config: AnnotateConfig) -> Estimate:
    """The remaining cost of a stage."""
    result = Estimate(stage.name)
    rejected = shards.rejected()
    retried, rejected = (rejected, {}) if config.retry_rejected else ({}, rejected)
    for shard, group in itertools.groupby(rows, key=lambda row: shards.shard_of(row.number)):
        known = by_id(shards.records(shard))
        for row in group:
            result.rows += 1
            records = known.get(row.id, [])
            records = stage.kept_for_retry(records) if row.id in retried else records
            if isinstance(row, BadRow) or row.id in rejected or stage.is_done(row, records):
                result.done += 1
            else:
                _ADD[type(stage)](result, stage, row, len(records), config)
    return result


def assumed(stage: Stage, num_solutions: int, config: AnnotateConfig) -> Estimate:
    """The cost of labelling solutions that are not sampled yet: ``ASSUMED_RESPONSE`` tokens in ``ASSUMED_STEPS``."""
    step = "x" * round(ASSUMED_RESPONSE / ASSUMED_STEPS * CHARACTERS_PER_TOKEN)
    one, result = Estimate(stage.name), Estimate(stage.name, rows=num_solutions, assumed=True)
    row = Solution("", 0, step, "", [step] * ASSUMED_STEPS)
    _ADD[type(stage)](one, stage, row, 0, config)
    for name in ("calls", "prompt_tokens", "new_prompt_tokens", "completion_tokens", "most_completion_tokens"):
        setattr(result, name, getattr(one, name) * num_solutions)
    return result


def _tokens(*texts: str) -> float:
    return sum(map(len, texts)) / CHARACTERS_PER_TOKEN


def _add_sample(result: Estimate, stage: Any, row: Any, written: int, config: AnnotateConfig) -> None:
    n, prompt = config.num_responses, _tokens(row.prompt)
    result.add_call(prompt, prompt, n * ASSUMED_RESPONSE, n * stage.model.max_tokens)


def _add_monte_carlo(result: Estimate, stage: Any, row: Any, written: int, config: AnnotateConfig) -> None:
    problem, lengths = _tokens(row.prompt), [_tokens(step) for step in row.steps]
    n = config.num_completions
    for k in range(written, len(row.steps) - 1):
        prefix, rest = problem + sum(lengths[: k + 1]), sum(lengths[k + 1 :])
        new = prefix if k == written else lengths[k]
        result.add_call(prefix, new, n * rest, n * stage.model.max_tokens)


def _add_judge(result: Estimate, stage: Any, row: Any, written: int, config: AnnotateConfig) -> None:
    solution = _tokens(*row.steps)
    prompt = JUDGE_PROMPT + _tokens(row.prompt) + solution
    for vote in range(written, config.votes):
        result.add_call(prompt, prompt if vote == written else 0, JUDGED_LENGTH * solution, stage.model.max_tokens)


_ADD: dict[type, Any] = {SampleStage: _add_sample, MonteCarloStage: _add_monte_carlo, JudgeStage: _add_judge}


def table(estimates: list[Estimate]) -> str:
    """The estimates as a text table."""
    lines = [
        f"{'left to do':<14}{'rows':>11}{'done':>11}{'calls ≤':>12}{'prompt tok':>12}{'(cached)':>10}"
        f"{'output tok ~':>14}{'≤':>9}"
    ]
    for e in estimates:
        lines.append(
            f"{e.stage:<14}{e.rows:>11,}{e.done:>11,}{e.calls:>12,}{_short(e.prompt_tokens):>12}"
            f"{_short(e.new_prompt_tokens):>10}{_short(e.completion_tokens):>14}{_short(e.most_completion_tokens):>9}"
            + ("  assumed" if e.assumed else "")
        )
    if any(e.assumed for e in estimates):
        lines.append(f"assumed: {ASSUMED_STEPS} steps and {ASSUMED_RESPONSE} tokens per response, until there are some")
    return "\n".join(lines)


def _short(count: float) -> str:
    for unit in ("", "k", "M", "G"):
        if count < 1000:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g}T"
