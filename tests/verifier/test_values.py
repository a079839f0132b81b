"""Properties of the comparison: every notation of a number is that number, and no notation of another number is."""

import re
from fractions import Fraction

import pytest
from hypothesis import given, settings, strategies as st

from reward.verifier.answers.algebra import same_expression
from reward.verifier.answers.evaluate import Evaluator, Undefined
from reward.verifier.answers.grammar import parse
from reward.verifier.answers.judge import judge, readable
from reward.verifier.answers.shapes import Scalar
from reward.verifier.answers.tokens import Unreadable, tokenize
from reward.verifier.answers.values import same_value

NUMBERS = st.fractions(min_value=-200, max_value=200, max_denominator=60)


def decimal(number: Fraction) -> str | None:
    for digits in range(7):
        scaled = number * 10**digits
        if scaled.denominator == 1:
            sign, text = "-" * (number < 0), str(abs(scaled.numerator)).rjust(digits + 1, "0")
            return f"{sign}{text[: len(text) - digits]}.{text[len(text) - digits :]}".rstrip(".")
    return None


def notations(number: Fraction) -> list[str]:
    top, bottom, sign = abs(number.numerator), number.denominator, "-" * (number < 0)
    found = [
        rf"{sign}\frac{{{top}}}{{{bottom}}}",
        rf"\dfrac{{{number.numerator}}}{{{bottom}}}",
        f"{number.numerator}/{bottom}",
        rf"\frac{{{3 * number.numerator}}}{{{3 * bottom}}}",
        rf"x = {sign}\frac{{{top}}}{{{bottom}}}",
        rf"\text{{ }}{sign}\tfrac{{{top}}}{{{bottom}}}\,.",
        rf"\left({sign}\frac{{{top}}}{{{bottom}}}\right)",
        rf"{sign}\frac{{{top}\sqrt{{5}}}}{{{bottom}\sqrt{{5}}}}",
        rf"{number.numerator - bottom}/{bottom} + 1",
    ]
    if bottom > 1 and top > bottom:
        found.append(rf"{sign}{top // bottom}\frac{{{top % bottom}}}{{{bottom}}}")
        found.append(rf"{sign}{top // bottom} {top % bottom}/{bottom}")
    if top < 10 and bottom < 10:
        found.append(rf"{sign}\frac{top}{bottom}")
    if decimal(number) is not None:
        found += [decimal(number), decimal(number) + r"\text{ units}", rf"{decimal(1000 * number)}\times 10^{{-3}}"]
    return found


@settings(deadline=None, max_examples=40)
@given(NUMBERS)
def test_every_notation_is_the_same_number(number):
    forms = notations(number)
    for form in forms:
        assert judge(form, forms[0]) == "correct", (form, forms[0])
        assert judge(forms[2], form) == "correct", (forms[2], form)


@settings(deadline=None, max_examples=40)
@given(NUMBERS, NUMBERS)
def test_no_notation_is_another_number(number, other):
    if number == other:
        return
    gold = notations(number)[0]
    for form in notations(other):
        assert judge(form, gold) != "correct", (form, gold)


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 10**9), st.integers(10, 2000))
def test_a_tiny_difference_is_a_difference(whole, zeros):
    gold = rf"\sqrt{{{whole * whole + 1}}}"
    assert judge(rf"{gold}+10^{{-{zeros % 100}}}", gold) == "incorrect"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2+3*4", 14),
        ("-2^2", -4),
        ("(-2)^2", 4),
        ("2^3^2", None),
        ("2^{3^2}", 512),
        ("6/2*3", 9),
        ("-3!", -6),
        (r"\frac{1}{2}\cdot 4", 2),
        (r"2\frac{1}{2}\cdot 4", 10),
        (r"\sqrt{16}+\sqrt[3]{-8}", 2),
        (r"|3-5|\cdot|-2|", 4),
        (r"\lfloor 2.7\rfloor+\lceil 2.1\rceil", 5),
        (r"\binom{5}{2}+\gcd(12,18)+\max(1,2)", 18),
        (r"\log_2 8+\ln e+\lg 100", 6),
        (r"\sin^2 30^\circ+\cos^2 30^\circ", 1),
        (r"\sin^{-1} 1\cdot 2/\pi", 1),
        ("1e3+1", 1001),
        ("3 4", None),
        ("x2", None),
        ("2+", None),
        ("((1)", None),
    ],
)
def test_arithmetic(text, value):
    if value is None:
        with pytest.raises(Unreadable):
            Evaluator(50).value(parse(tokenize(text)))
    else:
        assert same_value(parse(tokenize(text)), ("num", Fraction(value)))


@pytest.mark.parametrize("text", ["1/0", r"\frac{3}{2-2}", r"0^{-1}", r"\log 0", r"\tan\frac{0}{0}"])
def test_undefined(text):
    with pytest.raises(Undefined):
        Evaluator(50).value(parse(tokenize(text)))
    assert judge(text, "0") == "incorrect"


@pytest.mark.parametrize(
    "text", ["9^{9^{9^9}}", "(10^9)!", r"\binom{10^9}{10^8}", r"\lfloor 10^{9999}\pi\rfloor", "2^{10^{10}}"]
)
def test_too_large_is_refused(text):
    with pytest.raises(Unreadable):
        Evaluator(50).value(parse(tokenize(text)))


EXPRESSIONS = r"""
x+1 | x^2-x-2 | (x-2)(x+1) | \frac{x^2-1}{x-1} | \sin^{2}{x} | 1-\cos^{2}{x} | e^{2x} | (e^{x})^{2}
\sqrt{2}+\sqrt{3} | \sqrt{5+2\sqrt{6}} | \frac{\sqrt{2}}{2} | \frac{1}{\sqrt{2}} | \sqrt{12} | 2\sqrt{3}
2^{10} | 1024 | \frac{1+i}{2} | \frac{1}{2}+\frac{i}{2} | \frac{\pi}{6} | a^{2}b | ab^{2} | ba^{2}
\ln{4} | 2\ln{2} | \binom{5}{2} | 10 | \frac{1}{x}+\frac{1}{y} | \frac{x+y}{xy} | x-y | y-x | 3.5
"""
EXPRESSIONS = re.split(r" \| |\n", EXPRESSIONS.strip())


@pytest.mark.parametrize("apart", [2, pytest.param(len(EXPRESSIONS), marks=pytest.mark.slow)])
def test_values_agree_with_the_computer_algebra_system(apart):
    """The layer that decides nearly everything against the slow one it stands for: on neighbours, and on every pair."""
    compared = 0
    for place, gold in enumerate(EXPRESSIONS):
        for answer in EXPRESSIONS[place : place + apart]:
            slow = same_expression(answer, gold)
            if slow is None:
                continue
            compared += 1
            (_, given_), (_, wanted) = readable(answer), readable(gold)
            assert isinstance(given_, Scalar) and isinstance(wanted, Scalar)
            assert same_value(given_.tree, wanted.tree) == slow, (answer, gold)
    assert compared > 0.45 * len(EXPRESSIONS) * min(apart, len(EXPRESSIONS) / 2)
