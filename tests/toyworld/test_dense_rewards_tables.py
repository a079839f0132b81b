"""``benchmarks/dense_rewards_tables.py``: gains are paired by build, and only runs of one regime are compared."""

import runpy
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
TABLES = runpy.run_path(str(BENCHMARKS / "dense_rewards_tables.py"), run_name="benchmark")
REGIME = TABLES["REGIMES"]["long"]


def run(part, build, scorer, method, accuracy, regime=REGIME, **more):
    cell = {"part": part, "world": "long", "build": build, "scorer": scorer, "method": method, "regime": regime}
    return {"cell": cell, "accuracy": accuracy, "process_accuracy": accuracy / 2, **more}


@pytest.fixture
def rows():
    measures = {"measures": {"first_error_f1": 0.6, "auroc_min": 0.7}}
    return [
        *(run("contenders", build, "none", "outcome", base) for build, base in ((23, 0.3), (24, 0.4))),
        run("contenders", 23, "none", "outcome", 0.9, regime={"learning_rate": 1.0}),  # an earlier regime
        *(run("contenders", build, "learned", "trusted", 0.5, **measures) for build in (23, 24)),
        *(run("contenders", build, "oracle", "trusted", 0.6, **measures) for build in (23, 24)),
        *(run("methods", build, "learned", "pure", value) for build, value in ((23, 0.2), (24, 0.4))),
        run("methods", 10, "learned", "pure", 1.0),  # a build that is not compared
        run("methods", 25, "learned", "pure", 1.0),  # outcome-only is missing there
    ]


def test_gains_are_paired_by_build(rows):
    gains = TABLES["method_gains"](rows, "long")
    assert list(gains) == ["trusted, exact labels", "trusted", "pure"]
    assert gains["pure"] == pytest.approx({23: -0.1, 24: 0.0}) and gains["trusted"] == pytest.approx({23: 0.2, 24: 0.1})
    forest = TABLES["forests"](rows)["long"][-1]
    assert forest["mean"] == pytest.approx(-0.05) and forest["low"] < -0.05 < forest["high"]


def test_the_table_of_a_part(rows):
    lines = TABLES["part_table"](rows, "methods").splitlines()
    (line,) = [line for line in lines if "| pure |" in line]
    assert "| 4 | 0.650 | 0.325 | -0.050 (" in line
    contenders = TABLES["part_table"](rows, "contenders")
    assert contenders.count("outcome") == 2 and "+0.150 (" in contenders


def test_longer_runs_are_compared_on_the_builds_that_have_all_of_them(rows):
    far = TABLES["longer_regime"]("long")
    rows += [run("longer", build, "none", "outcome", 0.7, regime=far) for build in (23, 24)]
    rows += [run("longer", build, "learned", "trusted", value, regime=far) for build, value in ((23, 0.75), (24, 0.81))]
    rows += [run("longer", 23, "oracle", "trusted", 0.9, regime=far)]
    rows += [run("longer", 25, "learned", "trusted", 0.1, regime=far)]  # a build without outcome-only
    lines = [line for line in TABLES["longer_table"](rows).splitlines() if line.startswith("| long ")]
    assert lines[0] == "| long | none | 2 | 0.350 | 0.700 | 0.700 |  |"
    assert lines[1].startswith("| long | learned | 2 | 0.500 | 0.780 | 0.700 | +0.080 (")
    assert lines[2].startswith("| long | oracle | 1 | 0.600 | 0.900 | 0.700 | +0.200")


def test_a_star_only_after_holm(rows):
    rows += [run("contenders", b, "none", "outcome", 0.3) for b in (25, 26, 27)]
    rows += [run("methods", b, "learned", "capo", 0.4 + b / 1e4) for b in range(23, 28)]
    rows = [row for row in rows if row["cell"]["method"] != "pure"] + [
        run("contenders", b, "learned", "trusted", 0.5, measures={"first_error_f1": 0.6, "auroc_min": 0.7})
        for b in (25, 26, 27)
    ]
    for row in rows:
        if row["cell"]["method"] == "outcome" and row["cell"]["regime"] == REGIME:
            row["accuracy"] = 0.3
    lines = tables_of(TABLES, rows)
    assert lines["`capo`"].strip().endswith("+0.103, 5/5 *") and lines["trusted, exact labels"].strip() == "+0.300, 2/2"


def tables_of(module, rows):
    """Name → cell of the long world."""
    every = [{**row, "cell": {**row["cell"], "world": world, "regime": module["REGIMES"][world]}}
             for row in rows if row["cell"]["regime"] == REGIME for world in module["WORLDS"]]  # fmt: skip
    return {line.split("|")[1].strip(): line.split("|")[3] for line in module["methods_table"](every).splitlines()}
