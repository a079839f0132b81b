"""Equality of sets of real numbers, however they are written: unions that overlap, exceptions, inequalities.

The ends of all intervals are numbered in ascending order, equal ones alike; over these integers sympy's sets are exact.
"""

from collections.abc import Callable
from functools import cmp_to_key

import sympy
from sympy import FiniteSet, Interval, S

from reward.verifier.answers.evaluate import Evaluator
from reward.verifier.answers.sets import MINUS, PLUS, constant, span_of_inequality, symbol
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
from reward.verifier.answers.values import DIGITS, is_real, same_value

MAX_PARTS = 32  # intervals and points; sympy's unions take quadratic time
Rank = Callable[[Shape], sympy.Integer]


class NoSet(Exception):
    """The shape is no set of real numbers with known ends."""


def same_real_set(answer: Shape, gold: Shape) -> bool:
    """Whether both are sets of real numbers, one of them written as more than one interval or list, and equal."""
    if not (composed(answer) or composed(gold)):
        return False
    try:
        ends, names = [], set()
        for shape in (answer, gold):
            collect(shape, ends, names)
        if len(names) > 1 or len(ends) > 2 * MAX_PARTS:
            return False
        rank = ranking(ends)
        return as_set(answer, rank) == as_set(gold, rank)
    except NoSet:
        return False


def composed(shape: Shape) -> bool:
    """Whether a shape says by itself that it is a set of reals: a union, an exception, an inequality."""
    if isinstance(shape, Collection):
        return any(isinstance(item, Chain) for item in shape.items)
    return isinstance(shape, Union | Difference | Intersection | Reals) or (
        isinstance(shape, Chain) and span_of_inequality(shape) is not None
    )


def members(shape: Shape) -> tuple[Shape, ...]:
    """The sets that a composed one is made of."""
    if isinstance(shape, Difference):
        return shape.base, shape.removed
    return shape.parts if isinstance(shape, Union | Intersection) else shape.items


def collect(shape: Shape, ends: list[Shape], names: set[str]) -> None:
    """Add the ends of all intervals, all points, and the variables of all inequalities."""
    if isinstance(shape, Reals):
        return
    if isinstance(shape, Chain):
        found = span_of_inequality(shape)
        if found is None:
            raise NoSet
        names.add(found[0])
        ends.extend(end for span in found[1] for end in (span.low, span.high))
    elif isinstance(shape, Scalar | Infinity):
        ends.append(shape)
    elif isinstance(shape, Sequence):
        ends.extend(shape.items)
    elif isinstance(shape, Union | Intersection | Difference | Collection):
        for member in members(shape):
            collect(member, ends, names)
    else:
        raise NoSet


def ranking(ends: list[Shape]) -> Rank:
    """The place of each end in ascending order, as a sympy number."""
    values = {}
    for end in ends:
        if isinstance(end, Infinity):
            continue
        if not constant(end) or end.unit or end.mark:
            raise NoSet
        at = Evaluator(DIGITS[0])
        value = at.value(end.tree)
        if not is_real(value):
            raise NoSet
        values[end.tree] = at.context.re(at.lift(value))

    def order(a, b) -> int:
        if same_value(a, b):
            return 0
        return -1 if values[a] < values[b] else 1

    places: dict = {}
    place, last = 0, None
    for tree in sorted(values, key=cmp_to_key(order)):
        place += last is not None and order(last, tree) != 0
        places[tree], last = sympy.Integer(place), tree

    def rank(end: Shape) -> sympy.Expr:
        return S.Infinity * end.sign if isinstance(end, Infinity) else places[end.tree]

    return rank


def interval(low: Shape, low_closed: bool, high: Shape, high_closed: bool, rank: Rank) -> sympy.Set:
    empty = rank(low) == rank(high) and not (low_closed and high_closed)
    if empty or low == PLUS or high == MINUS or rank(low) > rank(high):
        raise NoSet  # nobody writes down an interval with nothing in it
    return Interval(rank(low), rank(high), not low_closed, not high_closed)


def as_set(shape: Shape, rank: Rank) -> sympy.Set:
    """The set over the ranks of its ends."""
    if isinstance(shape, Reals):
        return S.Reals
    if isinstance(shape, Chain):
        _, spans = span_of_inequality(shape)
        return sympy.Union(*(interval(s.low, s.low_closed, s.high, s.high_closed, rank) for s in spans))
    if isinstance(shape, Sequence):
        if len(shape.items) != 2 or shape.opening not in "([" or shape.closing not in ")]":
            raise NoSet
        low, high = shape.items
        return interval(low, shape.opening == "[", high, shape.closing == "]", rank)
    if isinstance(shape, Collection):
        return of_collection(shape, rank)
    if isinstance(shape, Union | Intersection | Difference):
        parts = [as_set(part, rank) for part in members(shape)]
        if isinstance(shape, Difference):
            return parts[0] - parts[1]
        return sympy.Union(*parts) if isinstance(shape, Union) else sympy.Intersection(*parts)
    raise NoSet


def of_collection(shape: Collection, rank: Rank) -> sympy.Set:
    """Points, or conditions: "or" means their union, "and" that all hold, and so does a comma between exceptions."""
    if all(isinstance(item, Scalar) for item in shape.items):
        return FiniteSet(*map(rank, shape.items))
    first, *rest = shape.items
    if isinstance(first, Chain) and first.relations == ("≠",) and symbol(first.members[0]):  # x ≠ 1, 2
        rest = [
            Chain((first.members[0], item), ("≠",), (None, None)) if isinstance(item, Scalar) else item for item in rest
        ]
    conditions = [first, *rest]
    exceptions = all(
        isinstance(item, Reals) or (isinstance(item, Chain) and item.relations == ("≠",)) for item in conditions
    )
    if shape.joiner == "," and not exceptions:
        raise NoSet  # a comma between other conditions may mean either
    parts = [as_set(item, rank) for item in conditions]
    return sympy.Union(*parts) if shape.joiner == "or" else sympy.Intersection(*parts)
