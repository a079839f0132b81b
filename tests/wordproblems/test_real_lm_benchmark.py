"""``benchmarks/real_lm.py``: a cell counts once, and differences are paired by seed."""

import runpy
from pathlib import Path

import pytest

BENCHMARK = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "real_lm.py"), run_name="benchmark")
kept, table = BENCHMARK["kept"], BENCHMARK["table"]


def cell(method, seed, accuracy, updates=40):
    after = {"before": 0.4, "after": accuracy}
    return {
        **{"method": method, "seed": seed, "accuracy": after, "process_accuracy": after, "model": "smollm2"},
        **{"updates": updates, "training_seconds": 100, "eval_problems": 400},
    }


def test_a_cell_counts_once_and_the_newer_one_counts():
    rows = kept([cell("outcome", 0, 0.45), cell("outcome", 0, 0.41, updates=10)], [cell("outcome", 0, 0.46)])
    assert [(row["updates"], row["accuracy"]["after"]) for row in rows] == [(10, 0.41), (40, 0.46)]


def test_differences_by_hand():
    """+.02 and +.04: the mean is +.03; outcome-only's third seed has no partner."""
    rows = [cell("outcome", seed, value) for seed, value in enumerate((0.44, 0.46, 0.70))]
    rows += [cell("trusted", seed, value) for seed, value in enumerate((0.46, 0.50))]
    text = table([*rows, cell("ceiling", 0, 0.6)])
    assert "| `trusted` | 1 | 0.400 → 0.500 | 0.400 → 0.500 | 100 s |" in text
    assert "`trusted` − `outcome`, accuracy: +0.030 [" in text and "2 seeds" in text
    assert "`ceiling` − `outcome`: 1 pairs of seeds" in text


@pytest.mark.parametrize("count", [1, 3])
def test_every_seed_is_shown(count):
    text = table([cell("outcome", seed, 0.5) for seed in range(count)])
    assert text.count("| `outcome` |") == count
