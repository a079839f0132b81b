"""The numbers in docs/evaluation.md are those that the code gives."""

import random
from pathlib import Path

import pytest

from rlhf_prm.evaluation.audit import PROBES, RULES
from rlhf_prm.evaluation.command import EVALUATIONS
from rlhf_prm.evaluation.processbench import load_processbench, processbench
from tests.evaluation.fakes import RuleScorer

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "evaluation.md").read_text()


@pytest.mark.parametrize("name", ["always right", "always wrong", "random, seed 0", "random, seed 1", "random, seed 2"])
def test_the_floor_is_as_printed(name, shared_data):
    generator = random.Random(int(name[-1])) if name[-1].isdigit() else None
    score = {"always right": lambda *_: 1.0, "always wrong": lambda *_: 0.0}.get(name) or (
        lambda *_: generator.random()
    )
    results = processbench(RuleScorer(score), load_processbench(shared_data))
    keys = ("error_accuracy", "correct_accuracy", "f1")
    numbers = [results[subset][key] for subset in ("gsm8k", "math") for key in keys] + [results["mean"]["f1"]]
    assert f"| {name} | " + " | ".join(f"{number:.4f}" for number in numbers) + " |" in PAGE


def test_every_evaluation_and_audit_line_is_on_the_page():
    for name in EVALUATIONS:
        assert f"| `{name}` |" in PAGE
    for name in (*RULES, *PROBES):
        assert name.replace("drift with step length", "with step length").removeprefix("probe: ") in PAGE, name
