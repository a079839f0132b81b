"""The comparison: by hand, in words, and the interval's coverage."""

import json
import random

import pytest

from rlhf_prm.ablation.config import AblationConfig
from rlhf_prm.ablation.launch import cell_runs
from rlhf_prm.ablation.markdown import markdown
from rlhf_prm.ablation.page import write_page
from rlhf_prm.ablation.table import build_table
from rlhf_prm.statistics import difference_interval, difference_p_value, holm_adjusted


def finish(config: AblationConfig, values: dict[str, list[float]]):
    """Folders as if the cells had run: ``values[method][i]`` on seed i; None is a run that is not there."""
    runs = cell_runs(config)
    for run in runs:
        value = values[dict(run.cell.labels)["method"]][run.seed]
        if value is not None:
            run.folder.mkdir(parents=True)
            (run.folder / "summary.json").write_text(json.dumps({"accuracy": {"after": value}}))
            (run.folder / "metrics.jsonl").write_text('{"step": 80, "generated_tokens": 5000}\n')
    return runs


def ablation(tmp_path, methods, seeds, **changes):
    arguments = {"grid": {"method": methods}, "metrics": ["accuracy.after"], "output_dir": str(tmp_path / "x")}
    return AblationConfig(recipe="r.py", seeds=list(range(seeds)), **{**arguments, **changes})


def test_paired_differences_by_hand(tmp_path):
    config = ablation(tmp_path, ["outcome", "pure"], 3)
    runs = finish(config, {"outcome": [0.50, 0.60, 0.70], "pure": [0.53, 0.62, 0.69]})
    baseline, row = build_table(config, runs).groups["all"]
    c = row.comparisons["accuracy.after"]
    assert c.differences == pytest.approx({0: 0.03, 1: 0.02, 2: -0.01}) and c.wins == 2
    # mean 0.04/3, s = 0.0208167, t(0.975, 2) = 4.302653: half width 4.302653·0.0208167/√3 = 0.051712
    assert c.difference == pytest.approx((0.0133333, -0.0383785, 0.0650452), abs=1e-6)
    assert baseline.is_baseline and baseline.comparisons["accuracy.after"].mean.mean == pytest.approx(0.6)
    text = markdown(build_table(config, runs))
    assert "| pure | 0.530 | 0.620 | 0.690 | 0.613 | +0.013 (-0.038 to +0.065) | 2/3 | 0.38 | 80 | 5,000 |" in text
    assert "some cells have only 3 paired" in text


def test_a_missing_seed_is_left_out_of_the_pairs_on_both_sides(tmp_path):
    config = ablation(tmp_path, ["outcome", "pure"], 3)
    runs = finish(config, {"outcome": [0.5, None, 0.7], "pure": [0.6, 0.9, None]})
    table = build_table(config, runs)
    c = table.groups["all"][1].comparisons["accuracy.after"]
    assert c.differences == pytest.approx({0: 0.1}) and c.mean.mean == pytest.approx(0.75)
    assert any("2 of 6 runs not finished" in warning for warning in table.warnings)
    assert "+0.100 (– to –)" in markdown(table)


def test_worlds_are_compared_within_themselves(tmp_path):
    grid = {"method": ["outcome", "pure"], "world": {"plain": {}, "long": {"world_settings": {"long_chains": True}}}}
    config = ablation(tmp_path, [], 1, grid=grid)
    for run in cell_runs(config):
        run.folder.mkdir(parents=True)
        labels = dict(run.cell.labels)
        value = {"plain": 0.6, "long": 0.2}[labels["world"]] + 0.1 * (labels["method"] == "pure")
        (run.folder / "summary.json").write_text(json.dumps({"accuracy": {"after": value}}))
    table = build_table(config, cell_runs(config))
    assert list(table.groups) == ["world plain", "world long"]
    for rows in table.groups.values():
        assert rows[1].comparisons["accuracy.after"].difference.mean == pytest.approx(0.1)
    told = markdown(table)
    assert (
        "| cell | world plain | world long |\n|---|---|---|\n| outcome | 0.600 (baseline) | 0.200 (baseline) |" in told
    )
    assert "| pure | +0.100, 1/1 | +0.100, 1/1 |" in told
    assert "0.600 (baseline)" in write_page(table, cell_runs(config), tmp_path / "page.html").read_text()


def test_enough_seeds_and_one_comparison_give_no_warning(tmp_path):
    config = ablation(tmp_path, ["outcome", "pure"], 5)
    assert build_table(config, finish(config, {"outcome": [0.5] * 5, "pure": [0.6, 0.5, 0.6, 0.5, 0.6]})).warnings == []


def test_page_of_an_ablation_with_everything_missing(tmp_path):
    config = ablation(tmp_path, ["outcome", "pure"], 2)
    runs = cell_runs(config)
    text = write_page(build_table(config, runs), runs, tmp_path / "report.html").read_text()
    assert "4 of 4 runs not finished yet" in text and "Difference in" not in text


def test_holm_by_hand():
    assert holm_adjusted([0.01, 0.04, 0.03, float("nan")])[:3] == pytest.approx([0.03, 0.06, 0.06])
    assert holm_adjusted([0.5, 0.6]) == [1.0, 1.0]
    assert difference_p_value([0.0, 0.0]) == 1.0 and difference_p_value([0.1, 0.1]) == 0.0
    assert difference_p_value([1.0, 2.0, 3.0]) == pytest.approx(0.0741799)  # t = 3.4641 with 2 degrees


@pytest.mark.parametrize("seeds", [3, 5, 8, 12])
def test_null_cells_are_covered_95_times_in_100(seeds):
    """The same method twice: builds that differ a lot, noise within a build. 600 ablations; ± 3 is 3.4 SE."""
    draw, covered = random.Random(seeds), 0
    for _ in range(600):
        builds = [draw.gauss(0.6, 0.1) for _ in range(seeds)]
        first = [build + draw.gauss(0, 0.03) for build in builds]
        second = [build + draw.gauss(0, 0.03) for build in builds]
        interval = difference_interval([a - b for a, b in zip(first, second, strict=True)], draws=1999)
        covered += interval.low <= 0 <= interval.high
    assert 0.92 <= covered / 600 <= 0.98


def test_a_real_difference_is_found():
    draw = random.Random(1)
    found = 0
    for _ in range(200):
        interval = difference_interval([draw.gauss(0.08, 0.04) for _ in range(8)])
        found += interval.low > 0
    assert found > 180


def test_bootstrap_t_against_a_plain_loop():
    import numpy as np

    values = [0.02, 0.05, -0.01, 0.04, 0.03, 0.08, 0.00, 0.02]
    indices = np.random.default_rng(8).integers(0, 8, (9999, 8))
    mean, s = np.mean(values), np.std(values, ddof=1) / 8**0.5
    ratios = []
    for row in indices:
        sample = [values[i] for i in row]
        spread = np.std(sample, ddof=1) / 8**0.5
        ratios.append((np.mean(sample) - mean) / spread if spread > 0 else np.copysign(np.inf, np.mean(sample) - mean))
    ratios = sorted(ratios)
    low, high = ratios[int(np.ceil(0.025 * 9998))], ratios[int(np.ceil(0.975 * 9998))]
    assert difference_interval(values)[1:] == pytest.approx((mean - high * s, mean - low * s), rel=1e-9)
