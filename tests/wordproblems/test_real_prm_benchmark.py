"""``benchmarks/real_prm.py``: kinds of first errors, and what a PRM separates, by hand."""

import runpy
from pathlib import Path

import pytest

BENCHMARK = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "real_prm.py"), run_name="benchmark")


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        ("That makes 6*8=47 buttons.", "arithmetic"),
        ("That makes 6*8=48 buttons, and 48-3=44 remain.", "arithmetic"),
        ("That makes 6+8=14 buttons.", "another calculation"),
        ("That makes 48 buttons.", "no calculation"),
        ("The answer is \\boxed{48}.", "no calculation"),
    ],
)
def test_kinds_of_first_errors(step, kind):
    assert BENCHMARK["kind_of_error"](step) == kind


def test_a_prm_that_knows_only_the_problem_separates_nothing_within_it():
    """Steps after the first error count nowhere; 0.9 and 0.1 tell the problems apart and not their rollouts."""
    labelled = BENCHMARK["up_to_the_first_error"]
    assert labelled([0.9, 0.2, 0.7], 1) == ([0.9, 0.2], [True, False])
    assert labelled([0.9, 0.2], -1) == ([0.9, 0.2], [True, True])
    easy = [labelled([0.9], error) for error in (-1, -1, -1, 0)]
    hard = [labelled([0.1], error) for error in (-1, 0, 0, 0)]
    everywhere, within = BENCHMARK["measured"]([easy, hard])
    assert everywhere == pytest.approx((3 * 3 + 0.5 * (3 * 1 + 1 * 3)) / 16)
    assert within.value == 0.5
    knows = [labelled([0.9 if error < 0 else 0.1, 0.3], error) for error in (-1, 0, 0, 0)]
    assert BENCHMARK["measured"]([knows, hard])[1].value == 0.75
