"""Compares sets of real numbers, however they are written, as sympy's sets of intervals, points and exceptions.

Every end becomes one sympy number, exact to 130 digits, and ends that are equal become the same number. An end that is
not a real number by itself (a letter, a length) becomes a symbol, which equals only itself.
"""

from collections.abc import Callable
from fractions import Fraction
from itertools import combinations

import sympy
from mpmath import libmp
from sympy import FiniteSet, Interval, S

from reward.verifier.answers.evaluate import Evaluator
from reward.verifier.answers.grammar import variables
from reward.verifier.answers.shapes import (
    Chain,
    Collection,
    Difference,
    Infinity,
    Intersection,
    Reals,
    Scalar,
    Sequence,
    Shape,
    Union,
)
from reward.verifier.answers.values import DIGITS, is_real

MAX_ENDS = 64  # of both sets together; sympy's unions take quadratic time
FLIPPED = {"<": ">", ">": "<", "≤": "≥", "≥": "≤"}
EVERYTHING = Interval(S.NegativeInfinity, S.Infinity)


class NoSet(Exception):
    """The shape is not a set of real numbers, or is not a sensible one (an empty interval)."""


def same_real_set(answer: Shape, gold: Shape, same_end: Callable[[Shape, Shape], bool]) -> bool:
    """Whether both are sets of real numbers and equal, and at least one is a union, an exception or an inequality.

    Args:
        same_end: whether an end of the answer is an end of the gold.
    """
    if not (composed(answer) or composed(gold)):
        return False
    line = RealLine(same_end)
    try:
        wanted, given = line.set_of(gold), line.set_of(answer)
    except NoSet:
        return False
    return len(line.names) <= 1 and given is not S.EmptySet and given == wanted


def composed(shape: Shape) -> bool:
    """Whether a shape can only be a set of reals: a union, an exception, an inequality."""
    if isinstance(shape, Collection):
        return any(isinstance(item, Chain) for item in shape.items)
    return isinstance(shape, Union | Difference | Intersection | Reals | Chain)


def constant(shape: Shape) -> bool:
    return isinstance(shape, Infinity) or (isinstance(shape, Scalar) and not variables(shape.tree))


def symbol(shape: Shape) -> str | None:
    """The name of the variable if the shape is a single variable, else None."""
    return shape.tree[1] if isinstance(shape, Scalar) and shape.tree[0] == "var" and variables(shape.tree) else None


def number(end: Shape) -> sympy.Rational | None:
    """A real constant without unit or sign as a fraction; None for any other end."""
    if not isinstance(end, Scalar) or not constant(end) or end.unit or end.mark:
        return None
    at = Evaluator(DIGITS[-1])
    value = at.value(end.tree)
    if not is_real(value):
        return None
    exact = value if isinstance(value, Fraction) else Fraction(*libmp.to_rational(at.context.re(at.lift(value))._mpf_))
    return sympy.Rational(exact.numerator, exact.denominator)


class RealLine:
    """Turns shapes into sympy sets. It keeps the ends and the variables of earlier sets, so that equal ends match."""

    def __init__(self, same_end: Callable[[Shape, Shape], bool]):
        self.same_end = same_end
        self.places: list[tuple[Shape, sympy.Expr]] = []
        self.names: set[str] = set()
        self.asked = 0

    def place(self, end: Shape) -> sympy.Expr:
        """The number where an end lies, or a symbol for it."""
        self.asked += 1
        if self.asked > MAX_ENDS:
            raise NoSet
        if isinstance(end, Infinity):
            return S.Infinity * end.sign
        for known, place in self.places:
            if self.same_end(end, known):
                return place
        found = number(end)
        found = sympy.Symbol(f"end{len(self.places)}", real=True) if found is None else found
        self.places.append((end, found))
        return found

    def interval(self, low: Shape, low_closed: bool, high: Shape, high_closed: bool) -> sympy.Set:
        found = Interval(self.place(low), self.place(high), not low_closed, not high_closed)
        if found is S.EmptySet:
            raise NoSet
        return found

    def set_of(self, shape: Shape) -> sympy.Set:
        """The set that a shape describes.

        Raises:
            NoSet: it describes none.
        """
        match shape:
            case Reals():
                return EVERYTHING
            case Chain():
                return self.inequality(shape)
            case Sequence(opening=("(" | "[") as opening, items=(low, high), closing=(")" | "]") as closing):
                return self.interval(low, opening == "[", high, closing == "]")
            case Collection():
                return self.collection(shape)
            case Difference():
                return self.set_of(shape.base) - self.set_of(shape.removed)
            case Union():
                return sympy.Union(*map(self.set_of, shape.parts))
            case Intersection():
                return sympy.Intersection(*map(self.set_of, shape.parts))
        raise NoSet

    def inequality(self, chain: Chain) -> sympy.Set:
        """``x > 3``, ``3 < x``, ``1 ≤ x < 2`` or ``x ≠ 0``."""
        members, relations = chain.members, chain.relations
        if len(members) == 2 and constant(members[0]) and relations[0] in FLIPPED:
            members, relations = members[::-1], (FLIPPED[relations[0]],)
        if len(members) == 3 and all(relation in (">", "≥") for relation in relations):
            members, relations = members[::-1], tuple(FLIPPED[relation] for relation in relations[::-1])
        variable = members[len(members) - 2]
        name, ends = symbol(variable), [member for member in members if member is not variable]
        if name is None or not all(map(constant, ends)):
            raise NoSet
        self.names.add(name)
        minus, plus = Infinity(-1), Infinity(1)
        match relations, ends:
            case ("≠",), (end,):
                return EVERYTHING - FiniteSet(self.place(end))
            case (("<" | "≤") as relation,), (end,):
                return self.interval(minus, False, end, relation == "≤")
            case ((">" | "≥") as relation,), (end,):
                return self.interval(end, relation == "≥", plus, False)
            case (("<" | "≤") as first, ("<" | "≤") as second), (low, high):
                return self.interval(low, first == "≤", high, second == "≤")
        raise NoSet

    def collection(self, shape: Collection) -> sympy.Set:
        """A set of points, or of conditions: "or" means their union; "and", or a comma between exceptions, means all.

        A comma between other conditions means "or" if at most single points satisfy two of them: x < 1, x > 3.
        """
        if all(isinstance(item, Scalar) for item in shape.items):
            return FiniteSet(*map(self.place, shape.items))
        first, *rest = shape.items
        if isinstance(first, Chain) and first.relations == ("≠",) and symbol(first.members[0]):  # x ≠ 1, 2
            rest = [
                Chain((first.members[0], item), ("≠",), (None, None)) if isinstance(item, Scalar) else item
                for item in rest
            ]
        conditions = [first, *rest]
        parts = [self.set_of(item) for item in conditions]
        exceptions = all(
            isinstance(item, Reals) or (isinstance(item, Chain) and item.relations == ("≠",)) for item in conditions
        )
        if shape.joiner == "and" or (shape.joiner == "," and exceptions):
            return sympy.Intersection(*parts)
        if shape.joiner == "," and any(isinstance(a & b, Interval | sympy.Union) for a, b in combinations(parts, 2)):
            raise NoSet
        return sympy.Union(*parts)
