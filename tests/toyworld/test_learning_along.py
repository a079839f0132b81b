"""``benchmarks/learning_along.py``: what its tables and its pretrained implicit PRM are made of."""

import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import learning_along

from rlhf_prm.prm.token_model import load_token_model
from rlhf_prm.prm_training.implicit import ImplicitPRM, ImplicitSettings
from rlhf_prm.prm_training.implicit_models import TwoModels
from rlhf_prm.statistics import auroc


def row(part, world, name, cpu_seconds=1.0, quality=(), **keywords):
    cell = learning_along.cell(part, world, 10, name, {"method": "prime", **keywords})
    return {"cell": cell, "cpu_seconds": cpu_seconds, "scorer_quality": list(quality)}


def test_costs_are_means_over_those_of_outcome_only():
    rows = [
        *(row("tuning", "plain", "outcome", seconds) for seconds in (10.0, 30.0)),
        *(row("tuning", "plain", "implicit", seconds, learning_rate=seconds) for seconds in (40.0, 60.0)),
        row("contenders", "plain", "implicit", 1e6),
    ]
    assert learning_along.costs(rows) == {"plain": {"outcome": 1.0, "implicit": 2.5}}


def test_for_equal_seconds_a_dearer_contender_has_fewer_updates():
    spent = {world: dict.fromkeys(("frozen", "refreshed", "implicit", "teacher"), 2.0) for world in ("plain", "long")}
    spent["plain"]["frozen"] = 1.25
    cells = list(learning_along.seconds([23], spent))
    assert len(cells) == 2 * len(learning_along.CHOSEN)
    steps = {(one["world"], one["scorer"].partition(":")[0]): one["regime"]["max_steps"] for one in cells}
    assert steps["plain", "frozen"] == 64 and steps["plain", "implicit"] == steps["plain", "implicit_pretrained"] == 40
    assert steps["long", "teacher"] == 80
    assert all(one["regime"].keys() >= learning_along.REGIMES[one["world"]].keys() for one in cells)


def test_the_quality_of_an_update_is_a_mean_with_its_ends_and_without_the_unknown():
    def measured(*values):
        return [{"update": 8 * (i + 1), "auroc": value} for i, value in enumerate(values)]

    rows = [
        row("contenders", "plain", "frozen", quality=measured(0.5, 0.8)),
        row("contenders", "plain", "frozen", quality=measured(0.7, math.nan)),
        row("filler", "filler", "refreshed", quality=measured(0.6), labels="judge"),
        row("tuning", "plain", "frozen", quality=measured(0.1)),
    ]
    found = learning_along.quality(rows, "auroc")
    assert found["plain"]["frozen"] == [[8, pytest.approx(0.6), 0.5, 0.7], [16, 0.8, 0.8, 0.8]]
    assert found["filler"] == {"refreshed, judge": [[8, 0.6, 0.6, 0.6]]}


def test_pretraining_tells_right_solutions_from_wrong_ones(small_world):
    policy = str(small_world.policy_path)
    models, rows = TwoModels(load_token_model(policy), load_token_model(policy)), learning_along.solved(small_world)
    right = [bool(one.verdict) for one in rows]
    assert len(rows) == 100 and 0 < sum(right) < 100
    prm = ImplicitPRM(models, ImplicitSettings(beta=0.5))
    assert not any(scores.any() for scores in prm.score_tokens(rows))  # it starts as the policy
    learning_along.pretrain(models, rows, beta=0.5, epochs=10, seed=0)
    assert auroc([float(scores.sum()) for scores in prm.score_tokens(rows)], right) > 0.9
