"""Whether two trees have the same value.

Rationals are compared exactly, everything else to 40 and again to 120 digits. Trees with free variables are compared at
several points where the gold is real.
"""

import random
from fractions import Fraction
from functools import lru_cache

from reward.verifier.answers.evaluate import Evaluator, Undefined, Value
from reward.verifier.answers.grammar import Tree, variables

DIGITS = (50, 130)
POINTS = 8
ENOUGH_POINTS = 3
Point = tuple[tuple[str, Fraction], ...]  # a value for each variable


@lru_cache(maxsize=4_096)
def value_at(tree: Tree, digits: int, point: Point) -> Value:
    """The value of a tree at a point; it is cached, because the same golds come again."""
    return Evaluator(digits, dict(point)).value(tree)


def points(names: set[str]) -> list[Point]:
    """Sample points: the same for the same names, half of them positive, half of any sign."""
    found = []
    for index in range(POINTS):
        source = random.Random(index)
        values = [Fraction(source.randint(300, 2_900), 1009) for _ in names]
        if index % 2:
            values = [value * source.choice((-1, 1)) for value in values]
        found.append(tuple(zip(sorted(names), values, strict=True)))
    return found


def close(a: Value, b: Value, digits: int) -> bool:
    """Whether two values agree to ``digits`` digits, relative to the larger; rationals exactly."""
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    at = Evaluator(digits)
    a, b = at.lift(a), at.lift(b)
    return abs(a - b) <= at.context.mpf(10) ** -digits * max(abs(a), abs(b))


def vanishing(value: Value, digits: int) -> bool:
    """Whether a value is zero up to rounding."""
    return value == 0 if isinstance(value, Fraction) else abs(value) < Evaluator(digits).context.mpf(10) ** -digits


def is_real(value: Value) -> bool:
    return isinstance(value, Fraction) or abs(value.imag) <= abs(value) * 1e-30


def same_at(answer: Tree, gold: Tree, point: Point) -> bool:
    """Whether two trees agree at a point."""
    for digits in DIGITS:
        gold_value, value = value_at(gold, digits, point), value_at(answer, digits, point)
        slack = digits - 10
        if not close(value, gold_value, slack) and not (vanishing(value, slack) and vanishing(gold_value, slack)):
            return False
    return True


def same_value(answer: Tree, gold: Tree) -> bool:
    """Whether two expressions are equal: as numbers, or at every sample point where the gold is real.

    Raises:
        Undefined: the answer has no value. Unreadable: it is too large to evaluate.
    """
    names = variables(answer) | variables(gold)
    if not names:
        return same_at(answer, gold, ())
    real: list[Point] = []
    complex_: list[Point] = []
    for point in points(names):
        try:
            value = value_at(gold, DIGITS[0], point)
        except Undefined:
            continue
        (real if is_real(value) else complex_).append(point)
    where = real or complex_
    return len(where) >= ENOUGH_POINTS and all(same_at(answer, gold, point) for point in where)


def proportional(answer: Tree, gold: Tree) -> float | None:
    """The constant c ≠ 0 with answer = c·gold at every sample point (its sign is what matters), or None."""
    names = variables(answer) | variables(gold)
    ratios = []
    for point in points(names):
        try:
            at = Evaluator(DIGITS[0], dict(point))
            top, bottom = at.value(answer), at.value(gold)
        except Undefined:
            continue
        if vanishing(bottom, 30) or vanishing(top, 30):
            return None
        ratios.append(at.lift(top) / at.lift(bottom))
    if len(ratios) < ENOUGH_POINTS or any(abs(ratio - ratios[0]) > abs(ratios[0]) * 1e-30 for ratio in ratios):
        return None
    return float(at.context.re(ratios[0])) if at.context.im(ratios[0]) == 0 else None
