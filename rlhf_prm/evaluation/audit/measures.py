"""The audit's measures on a policy's own samples, each a function from scored samples to an AuditLine."""

import math
import re
from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np

from rlhf_prm.evaluation.aggregation import solution_score
from rlhf_prm.evaluation.audit.lines import RULES, AuditLine
from rlhf_prm.evaluation.best_of_n import problem_values
from rlhf_prm.evaluation.samples import SampledProblem, rescored
from rlhf_prm.prm.protocol import StepScorer
from rlhf_prm.statistics import WRONG_AT_OR_BELOW, auroc, bootstrap_interval, predicted_first_error, rank_correlation

RESAMPLES = 300


def _line(name: str, value: float, meaning: str, interval=None, **details: float) -> AuditLine:
    rule = RULES[name]
    return AuditLine(name, value, rule.verdict(value), meaning, rule.yardstick, interval, details)


def _interval(rows: Sequence | np.ndarray, statistic: Callable[[np.ndarray], float]) -> tuple[float, float] | None:
    return bootstrap_interval(np.array(rows), statistic, resamples=RESAMPLES) if len(rows) > 1 else None


def _ratio(rows: np.ndarray) -> float:
    """Σ of column 0 over Σ of column 1."""
    hits, count = rows.sum(0)
    return float(hits / count) if count else math.nan


def minimum_at_last(samples: Sequence[SampledProblem]) -> AuditLine:
    """Share of solutions (of ≥ 2 steps) whose lowest score is the last one; a tie of m steps counts 1/m."""
    rows, chance = [], []
    for sample in samples:
        long = [scores for scores in sample.step_scores if len(scores) > 1 and not any(map(math.isnan, scores))]
        rows.append((sum((s[-1] == min(s)) / s.count(min(s)) for s in long), len(long)))
        chance += [1 / len(scores) for scores in long]
    value = _ratio(np.array(rows))
    return _line(
        "minimum at the last step",
        value,
        "the PRM's lowest score sits at the final answer in this share of solutions: the more often, the more it "
        "judges the outcome rather than the steps; a low share alone does not show that it judges the steps",
        _interval(rows, _ratio),
        chance=float(np.mean(chance)) if chance else math.nan,
    )


def tolerance(samples: Sequence[SampledProblem], threshold: float = WRONG_AT_OR_BELOW) -> AuditLine:
    """Of the solutions with a right answer and a known wrong step, the share in which no step is scored wrong."""
    rows, right, known = [], 0, 0
    for sample in samples:
        errors = sample.first_errors or [None] * len(sample.correct)
        judged = [
            (scores, error)
            for scores, correct, error in zip(sample.step_scores, sample.correct, errors, strict=True)
            if correct and error is not None
        ]
        known += len(judged)
        wrong = [scores for scores, error in judged if error >= 0]
        right += len(wrong)
        rows.append((sum(predicted_first_error(scores, threshold) == -1 for scores in wrong), len(wrong)))
    value = _ratio(np.array(rows)) if rows else math.nan
    return _line(
        "right answer, wrong process passes",
        value,
        "of the solutions that reach the right answer by a wrong step, this share passes the PRM unnoticed"
        if right
        else "not measured: no right answer is known to come from a wrong step (labels of first errors are needed)",
        _interval(rows, _ratio) if right else None,
        right_answers_with_known_process=float(known),
        of_these_wrong=float(right),
    )


def aggregation_ranking(samples: Sequence[SampledProblem], n: int, seed: int = 0) -> AuditLine:
    """Best-of-n by the last score minus the better of product and min, paired over problems."""
    names = ("product", "min", "last", "mean", "pass", "maj")
    rows = []
    for sample in samples:
        values = problem_values(sample, n, seed)
        rows.append([values[f"{name}@{n}"] for name in names] + [values["mean@1"]])
    means = np.mean(rows, 0)

    def advantage(table: np.ndarray) -> float:
        product, least, last = table.mean(0)[:3]
        return float(last - max(product, least))

    value, interval = advantage(np.array(rows)), _interval(rows, advantage)
    rule = RULES["last beats product and min"]
    certain = interval is not None and interval[0] > 0
    verdict = "unsafe" if certain else rule.verdict(value).replace("unsafe", "with care")
    return AuditLine(
        "last beats product and min",
        value,
        verdict,
        f"best-of-{n} by the last step's score, minus the better of product and min: above 0 its judgement "
        "of the outcome is worth more than that of the steps (unsafe where the interval lies above 0, with care where "
        "only the value does)",
        rule.yardstick,
        interval,
        {**{f"{name}@{n}": float(mean) for name, mean in zip(names, means, strict=False)}, "mean@1": float(means[-1])},
    )


DRIFTS = {
    "position": "scores that rise along right solutions are chances of success rather than verdicts on the step, a "
    "mark of Monte-Carlo labels; scores that fall make long solutions look worse than they are",
    "length": "a PRM that drifts pays for how long a step is",
}


def drift(samples: Sequence[SampledProblem], kind: str) -> AuditLine:
    """|Spearman ρ| of step scores with the step's ``position`` or its ``length`` in characters, right answers only."""
    rows = drift_points(samples, kind)

    def rho_of(chosen: np.ndarray) -> float:
        return rank_correlation(*np.concatenate([rows[i] for i in chosen]).T)

    every = np.arange(len(rows))
    rho = rho_of(every) if rows else math.nan
    low, high = _interval(every, rho_of) or (math.nan, math.nan)
    return _line(
        f"drift with step {kind}",
        abs(rho),
        f"rank correlation of a step's score with its {kind} in solutions whose answer is right (ρ = {rho:.2f}): "
        + DRIFTS[kind],
        None,
        rho=rho,
        rho_low=low,
        rho_high=high,
    )


def drift_points(samples: Sequence[SampledProblem], kind: str) -> list[np.ndarray]:
    """For each problem, (position or length, score) of the scored steps of its right solutions: (steps, 2)."""
    rows = []
    for sample in samples:
        points = []
        for steps, scores, correct in zip(sample.steps, sample.step_scores, sample.correct, strict=True):
            if correct:
                points += [
                    (index if kind == "position" else len(step), score)
                    for index, (step, score) in enumerate(zip(steps, scores, strict=True))
                    if not math.isnan(score)
                ]
        rows.append(np.array(points, dtype=float).reshape(-1, 2))
    return rows


def merged_pairs(steps: Sequence[str], separator: str = "\n") -> list[str]:
    """Every two neighbouring steps as one."""
    return [separator.join(steps[index : index + 2]) for index in range(0, len(steps), 2)]


def split_steps(steps: Sequence[str]) -> list[str]:
    """Every step cut at line breaks and sentence ends."""
    pieces = [piece.strip() for step in steps for piece in re.split(r"\n+|(?<=[.!?])\s+(?=[A-Z\\$])", step)]
    return [piece for piece in pieces if piece] or list(steps)


RESPLITS: dict[str, Callable[[Sequence[str]], list[str]]] = {"merged": merged_pairs, "split": split_steps}


def resplitting(samples: Sequence[SampledProblem], scorer: StepScorer) -> AuditLine:
    """Of the pairs of a problem's solutions that their lowest scores order, the share whose order turns round when
    the same texts are cut into steps in another way."""
    rows, changes = [], []
    for resplit in RESPLITS.values():
        new = iter(rescored(samples, [resplit(steps) for sample in samples for steps in sample.steps], scorer))
        for sample in samples:
            before = [solution_score(scores, "min") for scores in sample.step_scores]
            after = [solution_score(next(new), "min") for _ in sample.steps]
            pairs = [(i, j) for i, j in combinations(range(len(before)), 2) if before[i] != before[j]]
            flips = sum((before[i] - before[j]) * (after[i] - after[j]) < 0 for i, j in pairs)
            rows.append((flips, len(pairs)))
            changes += [abs(a - b) for a, b in zip(after, before, strict=True) if math.isfinite(a - b)]
    value = _ratio(np.array(rows))
    return _line(
        "re-splitting flips the order",
        value,
        "of the pairs of solutions that the lowest score orders, this share changes order when neighbouring steps are "
        "merged in pairs, or steps are cut at line breaks and sentence ends",
        _interval(rows, _ratio),
        mean_change_of_min=float(np.mean(changes)) if changes else math.nan,
    )


def outcome_separation(samples: Sequence[SampledProblem], threshold: float = WRONG_AT_OR_BELOW) -> AuditLine:
    """AUROC of the lowest step score against the verifier, and how many wrong answers pass every step."""
    pairs = [
        (solution_score(scores, "min"), correct)
        for sample in samples
        for scores, correct in zip(sample.step_scores, sample.correct, strict=True)
    ]
    pairs = [(score, correct) for score, correct in pairs if math.isfinite(score)]
    wrong = [score for score, correct in pairs if not correct]
    return _line(
        "tells right from wrong answers",
        auroc([score for score, _ in pairs], [correct for _, correct in pairs]),
        "probability that the lowest step score of a right solution is above that of a wrong one",
        None,
        wrong_answers_that_pass=float(np.mean([score > threshold for score in wrong])) if wrong else math.nan,
    )
