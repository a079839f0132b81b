"""benchmarks/null_coverage.py on values whose coverage is known."""

import json
import random
import runpy
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def null_coverage():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from null_coverage import null_coverage
    finally:
        sys.path.pop(0)
    return null_coverage


def test_normal_runs_are_covered_as_often_as_the_interval_says(null_coverage):
    draw = random.Random(1)
    values = [draw.gauss(0.4, 0.05) for _ in range(400)]
    found = null_coverage(values, 5, 2000)
    assert 0.93 < found.coverage < 0.97 and found.binomial[0] < found.coverage < found.binomial[1]
    # t(0.975, 4) · √2 · 0.05 · c₄(5) / √5, with c₄(5) = 0.9400
    assert found.mean_half_width == pytest.approx(2.7764 * 2**0.5 * 0.05 * 0.94 / 5**0.5, rel=0.1)


def test_no_run_meets_itself_and_all_are_used(null_coverage):
    # Four runs in two pairs; t(0.975, 1) = 12.71, so 0 is left out only if the two differences agree to about 8 %. Of
    # the ways to pair 0, 1, 10, 11 only {0, 1 | 10, 11} the same way round (1, 1 or −1, −1) and {0, 10 | 1, 11} do.
    found = null_coverage([0.0, 1.0, 10.0, 11.0], 2, 3000)
    assert found.without_one is None  # every ablation has every run
    assert found.coverage == pytest.approx(1 - 1 / 3, abs=0.03)


def test_one_run_far_off_is_told(null_coverage):
    draw = random.Random(2)
    low, high = null_coverage([*(draw.gauss(0.4, 0.01) for _ in range(11)), 5.0], 5, 400).without_one
    assert low <= 0.96 <= high  # with the outlier in it an interval always covers 0


def test_reads_the_finished_runs_of_an_ablation(tmp_path, monkeypatch, capsys):
    config = {
        "recipe": "r.py",
        "grid": {"method": ["outcome"]},
        "seeds": list(range(12)),
        "metrics": ["accuracy.after"],
    }
    (tmp_path / "null.yaml").write_text(yaml.safe_dump(config | {"output_dir": str(tmp_path / "out")}))
    for seed in range(11):
        folder = tmp_path / "out" / "cells" / "method=outcome" / f"seed{seed}"
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text(json.dumps({"accuracy": {"after": 0.4 + 0.01 * seed}}))
    arguments = ["null_coverage.py", "--config", str(tmp_path / "null.yaml"), "--ablations", "50"]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "benchmarks" / "null_coverage.py"), run_name="__main__")
    assert not ended.value.code
    printed = capsys.readouterr().out
    assert "outcome, accuracy.after: 11 runs, 0.450, standard deviation 0.033" in printed
    assert "5 pairs:" in printed and "8 pairs:" not in printed
