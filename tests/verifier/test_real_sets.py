"""Sets of real numbers through the judge: what a comma means, ends that are letters, and what is no set."""

import pytest

from reward.verifier.answers.judge import judge


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (r"x<1, x>3", r"\mathbb{R}\setminus[1,3]"),
        (r"(-\infty,1],[1,2]", r"(-\infty,2]\cup\{0\}"),
        (r"(a,b)\cup(c,d)", r"(c,d)\cup(a,b)"),
        (r"(-\infty,a),(a,\infty)", r"(-\infty,a)\cup(a,\infty)"),
        (r"0^\circ \le \theta < 90^\circ", r"[0,90)"),
        (r"0^\circ \le \theta < 90^\circ", r"[0,\frac{\pi}{2})"),
        (r"(\sqrt2,\sqrt3)\cup(\pi,4)", r"(\pi,\sqrt{16})\cup(2^{1/2},3^{1/2})"),
        (r"(1,3)\cup(10^{-30},1]", r"(10^{-30},3)"),
    ],
)
def test_equal_sets(gold, answer):
    assert judge(answer, gold) == judge(gold, answer) == "correct"


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (r"x>1, x<3", r"\mathbb{R}"),  # a comma between conditions that overlap may mean "and" or "or"
        (r"x>1, x<3", r"1<x<3"),
        (r"x<1 \text{ and } x>3", r"x<0 \text{ and } x>5"),  # nothing is left: nobody means that
        (r"(-\infty,a)\cup(a,\infty)", r"\mathbb{R}\setminus\{b\}"),
        (r"(a,b)\cup(c,d)", r"(a,b]\cup(c,d)"),
        (r"x>3", r"y>3"),
        (r"(0,1)\cup(2,3)", r"(0,1)\cup(3,2)"),
        (r"(0,10^{-30})\cup(1,2)", r"(0,2\cdot 10^{-30})\cup(1,2)"),
        (r"\mathbb{R}", r"\cup".join(f"[{n},{n + 1}]" for n in range(400))),  # too many ends
    ],
)
def test_other_sets(gold, answer):
    assert judge(answer, gold) != "correct" and judge(gold, answer) != "correct"
