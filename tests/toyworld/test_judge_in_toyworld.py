"""The toy world's judge as a step scorer, and the cells of ``benchmarks/dense_rewards.py`` that ask it."""

import math
import runpy
import sys
from pathlib import Path

import pytest

from rlhf_prm.judges.load import load_judge
from rlhf_prm.statistics import predicted_first_error
from rlhf_prm.toyworld.checker import step_labels
from rlhf_prm.toyworld.judge import FallibleJudge
from rlhf_prm.toyworld.quick_grpo import Regime, quick_grpo

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # as where it is run: its neighbours are found
BENCHMARK = runpy.run_path(str(BENCHMARKS / "dense_rewards.py"), run_name="benchmark")
TABLES = runpy.run_path(str(BENCHMARKS / "dense_rewards_tables.py"), run_name="benchmark")
sys.path.remove(str(BENCHMARKS))


def solutions(world, count=12):
    rows = world.held_out_solutions(count, 4, seed=5)
    return [row["prompt"] for row in rows], [row["completions"] for row in rows]


def test_a_judge_without_errors_says_what_the_checker_says(small_world):
    """Up to the first wrong step; nothing of the steps behind it, which "wrong" counts as labels do."""
    problems, steps = solutions(small_world)
    exact = [[float(label) for label in step_labels(p, row)] for p, row in zip(problems, steps, strict=True)]
    judge = load_judge("toy", generator=FallibleJudge(0.0, 0), votes=2)
    for scores, labels in zip(judge.score(problems, steps), exact, strict=True):
        error = labels.index(0.0) if 0.0 in labels else len(labels)
        assert scores[: error + 1] == labels[: error + 1] and all(map(math.isnan, scores[error + 1 :]))
    as_labels = load_judge("toy", generator=FallibleJudge(0.0, 0), behind_error="wrong")
    assert as_labels.score(problems, steps) == exact and any(len(set(labels)) == 2 for labels in exact)
    assert len({labels.index(0.0) if 0.0 in labels else -1 for labels in exact}) > 1


def test_random_errors_are_outvoted_and_systematic_ones_are_not(small_world):
    """20 % errors, half of each kind: with many votes what is left is the systematic half."""
    problems, steps = solutions(small_world, 40)
    truth = [step_labels(p, row) for p, row in zip(problems, steps, strict=True)]

    def wrong(votes):
        judge = load_judge("toy", generator=FallibleJudge(0.2, 3), votes=votes)
        scores = judge.score(problems, steps)
        firsts = [predicted_first_error(row) for row in scores]
        return sum(f != (t.index(False) if False in t else -1) for f, t in zip(firsts, truth, strict=True))

    one, nine = wrong(1), wrong(9)
    assert 0 < nine < one


def test_quick_grpo_on_the_judge(small_world):
    judge = BENCHMARK["judge_of"]("votes=2,flips=0.1", 0)
    result = quick_grpo(small_world, judge, "capo", regime=Regime(max_steps=2, prompts=2, num_generations=4))
    assert math.isfinite(result["accuracy"])
    stats = judge.stats
    assert stats.judge_votes + stats.judge_cache_hits + stats.judge_duplicates == 2 * 2 * 8
    assert stats.judge_prompt_tokens > 100 * stats.judge_calls > 0 == stats.judge_unreadable


def test_the_benchmarks_cells(small_world):
    cells = list(BENCHMARK["judges"]([20]))
    assert {one["scorer"] for one in cells} >= {"judge:votes=4,flips=0.2", "learned", "oracle", "none"}
    judge = BENCHMARK["scorer_of"]({"scorer": "judge:votes=4,flips=0.2", "build": 7}, small_world)
    assert judge.votes == 4 and judge.generator.flips == 0.2 and judge.generator.seed == 7
    with pytest.raises(ValueError, match="scorer judge: got vote, expected votes and flips"):
        BENCHMARK["judge_of"]("vote=4", 0)


def test_the_benchmarks_table_of_costs():
    cell = {"part": "judges", "world": "long", "scorer": "judge:votes=1,flips=0.1", "method": "trusted"}
    rows = [
        {
            "cell": {**cell, "build": build, "regime": {"max_steps": 10}},
            "accuracy": accuracy,
            "generated_tokens": 1000,
            "measures": {"first_error_f1": 0.8},
            "judge": {"judge_calls": 640, "judge_prompt_tokens": 2000.0, "judge_completion_tokens": 500.0},
        }
        for build, accuracy in ((20, 0.5), (21, 0.7))
    ]
    assert TABLES["judge_table"](rows).splitlines()[-1] == (
        "| long | judge:votes=1,flips=0.1 | trusted | 10 | 2 | 0.600 | 0.800 | 64 | 250 | 100 |"
    )
