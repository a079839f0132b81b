"""The last layer: sums, products, integrals, limits and determinants, through math-verify's LaTeX reader and sympy.

Nothing here is bounded in time or memory: it runs in a worker only, under the deadline and the memory cap.
"""

import re

import sympy
from latex2sympy2_extended import latex2sympy

from reward.answers.values import POINTS, points

MAX_LENGTH = 300
MAX_NUMBER = 7  # digits: a longer bound or exponent is not worth a deadline
DIGITS = 30


def warm_up() -> None:
    """Have the reader build its tables: half a second that no answer should pay for."""
    latex2sympy(r"\sum_{n=1}^{2} \frac{n}{2}").doit()


def to_sympy(text: str) -> sympy.Basic | None:
    """The sympy expression of an answer; None where the reader fails."""
    if len(text) > MAX_LENGTH or re.search(rf"[0-9]{{{MAX_NUMBER + 1},}}", text):
        return None
    text = re.sub(r"\\[dtc]frac", r"\\frac", text.strip().strip("$"))
    try:
        return latex2sympy(text)
    except Exception:  # text a model wrote; the reader raises its parser's and sympy's own exceptions
        return None


def same_expression(answer: str, gold: str) -> bool | None:
    """Whether two expressions are equal to 30 digits, at sample points if they have variables; None if unknown."""
    both = [to_sympy(text) for text in (answer, gold)]
    if not all(isinstance(expression, sympy.Expr) for expression in both):
        return None
    answer_value, gold_value = (expression.doit() for expression in both)
    names = {symbol.name: symbol for value in (answer_value, gold_value) for symbol in value.free_symbols}
    agreed = 0
    for point in points(set(names)) if names else [()]:
        at = {names[name]: sympy.Rational(value.numerator, value.denominator) for name, value in point}
        left, right = (sympy.N(value.subs(at), DIGITS + 10) for value in (answer_value, gold_value))
        if not (left.is_number and right.is_number and left.is_finite and right.is_finite):
            return None
        if abs(left - right) > sympy.Float(10) ** -DIGITS * max(abs(left), abs(right), sympy.Float(10) ** -DIGITS):
            return False
        agreed += 1
    return agreed in (1, POINTS) or None
