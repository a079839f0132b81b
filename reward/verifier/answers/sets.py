"""Sets of real numbers: intervals, inequalities in one variable and their unions, as one comparable form."""

from dataclasses import dataclass

from reward.verifier.answers.grammar import variables
from reward.verifier.answers.shapes import Chain, Collection, Infinity, Reals, Scalar, Sequence, Shape, Union

FLIPPED = {"<": ">", ">": "<", "≤": "≥", "≥": "≤"}


@dataclass(frozen=True)
class Span:
    """From ``low`` to ``high`` (shapes: scalars or infinities), each end closed (True) or open."""

    low: Shape
    low_closed: bool
    high: Shape
    high_closed: bool


MINUS, PLUS = Infinity(-1), Infinity(1)


def constant(shape: Shape) -> bool:
    return isinstance(shape, Infinity) or (isinstance(shape, Scalar) and not variables(shape.tree))


def symbol(shape: Shape) -> str | None:
    """The variable that a scalar is, if it is nothing else."""
    return shape.tree[1] if isinstance(shape, Scalar) and shape.tree[0] == "var" and variables(shape.tree) else None


def span_of_inequality(chain: Chain) -> tuple[str, list[Span]] | None:
    """``x > 3``, ``3 < x``, ``1 ≤ x < 2`` or ``x ≠ 0`` as a variable and spans."""
    members, relations = chain.members, chain.relations
    if relations == ("≠",) and symbol(members[0]) and constant(members[1]):
        value = members[1]
        return symbol(members[0]), [Span(MINUS, False, value, False), Span(value, False, PLUS, False)]
    if not all(relation in FLIPPED for relation in relations):
        return None
    if len(members) == 2:
        left, right, relation = *members, relations[0]
        if symbol(right) and constant(left):
            left, right, relation = right, left, FLIPPED[relation]
        if not (symbol(left) and constant(right)):
            return None
        closed = relation in "≤≥"
        span = Span(MINUS, False, right, closed) if relation in "<≤" else Span(right, closed, PLUS, False)
        return symbol(left), [span]
    if len(members) == 3 and symbol(members[1]) and constant(members[0]) and constant(members[2]):
        low, high = (members[0], relations[0]), (members[2], relations[1])
        if relations[0] in ">≥" and relations[1] in ">≥":
            low, high = high, low
        elif relations[0] not in "<≤" or relations[1] not in "<≤":
            return None
        return symbol(members[1]), [Span(low[0], low[1] in "≤≥", high[0], high[1] in "≤≥")]
    return None


def spans(shape: Shape) -> tuple[str | None, list[Span]] | None:
    """A set of reals as spans, with the variable it is written in, if any; None if it is no such set."""
    if isinstance(shape, Reals):
        return None, [Span(MINUS, False, PLUS, False)]
    if isinstance(shape, Sequence) and len(shape.items) == 2 and shape.opening in "([" and shape.closing in ")]":
        low, high = shape.items
        return None, [Span(low, shape.opening == "[", high, shape.closing == "]")]
    if isinstance(shape, Chain):
        return span_of_inequality(shape)
    parts = shape.parts if isinstance(shape, Union) else ()
    if isinstance(shape, Collection) and shape.joiner != "and":
        parts = shape.items
    found = [points(part) if isinstance(part, Collection) else spans(part) for part in parts]
    if not found or any(part is None for part in found) or len({variable for variable, _ in found}) != 1:
        return None
    return found[0][0], [span for _, part in found for span in part]


def points(shape: Collection) -> tuple[None, list[Span]]:
    """The finite part of a union, as closed spans of no length."""
    return None, [Span(item, True, item, True) for item in shape.items]
