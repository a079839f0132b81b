"""Read a run's folder: summary.json, metrics.jsonl, completions/*.parquet, baseline/ and hack_guard.jsonl.

Every part is optional: a run that was killed, or one that is still going, can be read too.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from reward import outcome_advantages
from rlhf_prm.files import read_json, read_json_lines
from rlhf_prm.steps import StepSplitter

Row = dict[str, Any]
NO_VERDICT = ("unlabelled", "bad_gold", "unscorable")


@dataclass(frozen=True)
class Rollout:
    """One sampled solution as it was logged. The list-valued fields have one entry per step.

    ``verdict`` is the verifier's status, or what the outcome says where nobody verified.
    A process reward is what the step's score added to its advantage: the advantage less the outcome-only one of TRL.
    Where tokens have scores, ``tokens`` are (text, score) of those of each step.
    """

    update: int
    group: int
    prompt: str
    steps: list[str]
    scores: list[float]
    advantages: list[float]
    process_rewards: list[float]
    outcome: float
    verdict: str
    advantage: float
    tool_results: list[tuple[int, str]] = field(default_factory=list)  # (number of steps before it, text)
    tokens: list[list[tuple[str, float]]] = field(default_factory=list)

    @property
    def right(self) -> bool | None:
        """What the verifier says, whatever else was paid; None where it cannot tell."""
        if math.isnan(self.outcome) or self.verdict in NO_VERDICT:
            return None
        return self.verdict == "correct"

    @property
    def mean_score(self) -> float:
        """Mean step score; NaN when no step has one."""
        known = [score for score in self.scores if not math.isnan(score)]
        return sum(known) / len(known) if known else math.nan


@dataclass(frozen=True)
class Run:
    """A run's folder, lazily read. Text stays on disk until ``rollouts()`` is iterated."""

    path: Path
    name: str
    summary: Row = field(default_factory=dict)
    metrics: list[Row] = field(default_factory=list)
    guard: list[Row] = field(default_factory=list)

    @property
    def method(self) -> str:
        return str(self.summary.get("method", "unknown method"))

    @property
    def seed(self) -> Any:
        return self.summary.get("seed", "?")

    @property
    def eval_problems(self) -> int:
        """On how many problems accuracy was measured before and after; 0 = not told."""
        return int(self.summary.get("eval_problems") or 0)

    @property
    def problems_on_the_way(self) -> int:
        """On how many problems accuracy was measured during training; 0 = not told."""
        told = int(self.settings.get("recipe.eval_every_limit") or 0)
        return min(told, self.eval_problems) if told and self.eval_problems else told

    @property
    def settings(self) -> Row:
        """The run's settings, those inside a mapping named by dots; the recipe's own first."""
        settings = dict(self.summary.get("settings") or {})
        recipe = settings.pop("recipe", None) or {}
        return {f"recipe.{key}": value for key, value in recipe.items()} | settings

    @cached_property
    def hack_limits(self) -> dict[str, float]:
        """HackGuard's limit of each detector: as it wrote them, or as its log tells of those that tripped."""
        told = {name: float(limit) for row in self.guard for name, limit in _LIMIT.findall(str(row.get("evidence")))}
        path = self.path / "hack_limits.json"
        return told | (read_json(path) if path.exists() else {})

    @cached_property
    def baseline(self) -> "Run | None":
        """The outcome-only run beside this one, if there is any."""
        return self._beside("baseline", "outcome")

    @cached_property
    def ceiling(self) -> "Run | None":
        """The run beside this one that was trained on exact step labels, if there is any."""
        return self._beside("ceiling", self.method)

    def _beside(self, name: str, method: str) -> "Run | None":
        folder, told = self.path / name, self.summary.get(name)
        if not folder.is_dir() and not told:
            return None
        read = read_run(folder) if folder.is_dir() else Run(folder, name)
        shared = {key: self.summary[key] for key in ("seed", "eval_problems", "settings") if key in self.summary}
        summary = read.summary or {**shared, **(told or {})}
        return Run(folder, name, {"method": method, **summary}, read.metrics, read.guard)

    @cached_property
    def files(self) -> list[Path]:
        return sorted((self.path / "completions").glob("*.parquet"))

    def rollouts(self) -> Iterator[list[Rollout]]:
        """The rollouts of each training batch, in order of update; a batch that was logged twice is given once.

        TRL writes its newest batch at every logging step, also when it has generated nothing since, and the rollouts
        of an evaluation before training as update 0, which is left out.
        """
        seen = None
        for path in self.files:
            rows = [row for row in pq.read_table(path).to_pylist() if row["step"] > 0]
            content = hash(tuple((str(row.get("prompt")), str(row.get("completion"))) for row in rows))
            if rows and content != seen:
                yield list(_read_rollouts(rows))
            seen = content


def read_run(path: str | Path) -> Run:
    """Read a run's folder.

    Raises:
        ValueError: the folder is absent, or has neither summary.json nor metrics.jsonl nor completions.
    """
    path = Path(path)
    if not path.is_dir():
        raise ValueError(f"run folder: got {str(path)!r}, which is not a folder; expected runs/<name>")
    if not any((path / part).exists() for part in ("summary.json", "metrics.jsonl", "completions")):
        raise ValueError(
            f"run folder: {str(path)!r} has none of summary.json, metrics.jsonl, completions/; expected runs/<name>"
        )
    summary_file = path / "summary.json"
    summary = read_json(summary_file) if summary_file.exists() else {}
    metrics, guard = (read_json_lines(path / name, may_be_cut=True) for name in ("metrics.jsonl", "hack_guard.jsonl"))
    return Run(path, path.resolve().name, summary, metrics, guard)


_LIMIT = re.compile(r"(\w+) \S+, at \w+ \S+, limit ([-+.\de]+)")  # of the evidence in hack_guard.jsonl


def _text(value: Any) -> str:
    """Plain text, or the contents of a list of chat messages."""
    if isinstance(value, str) or value is None:
        return value or ""
    return "\n".join(str(message.get("content", "")) for message in value)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _numbers(values: Any, count: int) -> list[float]:
    """``count`` numbers: what was logged, padded by NaN (a run without a PRM has no step scores)."""
    numbers = [_number(value) for value in (values if values is not None else [])]
    return (numbers + [math.nan] * count)[:count]


def _read_rollouts(rows: list[Row]) -> Iterator[Rollout]:
    """Rollouts of one batch: neighbours with the same prompt are a group. Rows without texts are left out."""
    rows = [row for row in rows if "steps" not in row or row["steps"] is not None]
    for group, (_, members) in enumerate(groupby(rows, key=lambda row: _text(row.get("prompt")))):
        members = list(members)
        outcomes = torch.tensor([_number(row.get("outcome_reward")) for row in members])
        for row, base in zip(members, outcome_advantages(outcomes, len(members)).tolist(), strict=True):
            yield _read_rollout(row, group, base)


def _read_rollout(row: Row, group: int, outcome_advantage: float) -> Rollout:
    steps = list(row.get("steps") or StepSplitter().split(_text(row.get("completion"))))
    outcome, advantages = _number(row.get("outcome_reward")), _numbers(row.get("step_advantages"), len(steps))
    return Rollout(
        update=int(row["step"]),
        group=group,
        prompt=_text(row.get("prompt")).strip(),
        steps=steps,
        scores=_numbers(row.get("step_scores"), len(steps)),
        advantages=advantages,
        process_rewards=[advantage - outcome_advantage for advantage in advantages],
        outcome=outcome,
        verdict=row.get("verifier_status") or _verdict(outcome),
        advantage=_number(row.get("advantage")),
        tool_results=[(int(one["after"]), str(one["text"])) for one in row.get("tool_results") or []],
        tokens=_tokens_of_steps(row),
    )


def _tokens_of_steps(row: Row) -> list[list[tuple[str, float]]]:
    """(text, score) of the tokens of each step; empty where the run has no token scores."""
    texts, scores, lengths = (row.get(name) for name in ("tokens", "token_scores", "step_lengths"))
    if not texts or scores is None or not lengths:
        return []
    tokens = zip(texts, map(_number, scores), strict=True)
    return [list(islice(tokens, int(length))) for length in lengths]


def _verdict(outcome: float) -> str:
    return "unscorable" if math.isnan(outcome) else "correct" if outcome > 0.5 else "incorrect"
