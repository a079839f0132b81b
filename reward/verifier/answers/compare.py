"""Whether two shapes are the same answer. The gold's kind decides whether order, brackets, names and units matter."""

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from reward.verifier.answers.evaluate import Evaluator
from reward.verifier.answers.grammar import Tree, variables
from reward.verifier.answers.real_sets import FLIPPED, same_real_set
from reward.verifier.answers.shapes import (
    Based,
    Chain,
    Clock,
    Collection,
    Difference,
    Infinity,
    Intersection,
    Matrix,
    Opaque,
    Ratio,
    Reals,
    Scalar,
    Sequence,
    Shape,
    Union,
    Words,
)
from reward.verifier.answers.units import agree
from reward.verifier.answers.values import DIGITS, proportional, same_value

CONSTANTS = {"C": ("c", "K", "k"), "c": ("C",)}  # the gold's constant of integration → other names an answer may use
LETTERS = {"C", "c", "K", "k"}
HALF_TURN = Fraction(180)


def equivalent(answer: Shape, gold: Shape) -> bool:
    """Whether ``answer`` is the same answer as ``gold``.

    Raises:
        Undefined, Unreadable: the answer has no value, or one too large to compare.
    """
    if isinstance(gold, Opaque) or isinstance(answer, Opaque):
        return isinstance(answer, Opaque) and isinstance(gold, Opaque) and answer.text == gold.text
    if isinstance(answer, Collection) and len(answer.items) == 1 and not isinstance(gold, Collection):
        return equivalent(answer.items[0], gold)
    if isinstance(gold, Collection) and len(gold.items) == 1 and not isinstance(answer, Collection):
        return equivalent(answer, gold.items[0])
    if isinstance(answer, Based) and answer.base == 10 and not isinstance(gold, Based):
        return equivalent(Scalar(("num", Fraction(answer.digits))), gold)
    return COMPARISONS[type(gold)](answer, gold)


def same_scalar(answer: Shape, gold: Scalar) -> bool:
    if isinstance(answer, Chain):
        return claimed(answer, gold)
    if isinstance(answer, Ratio):
        return len(answer.parts) == 2 and same_value(quotient(answer), gold.tree) and gold.unit is None
    if not isinstance(answer, Scalar):
        return False
    if answer.mark != gold.mark and (answer.mark or answer.unit) and (gold.mark or gold.unit):
        return False  # degrees are no percent, and neither is a length
    if answer.mark != gold.mark and "%" in (answer.mark, gold.mark):
        return same_percentage(answer, gold)
    if answer.mark != gold.mark and "°" in (answer.mark, gold.mark):
        return same_angle(answer, gold)
    scale = agree(answer.unit, gold.unit) if answer.unit and gold.unit else Fraction(1)
    if scale is None:
        return False
    tree = with_constant_of(gold.tree, answer.tree)
    return same_value(tree if scale == 1 else ("mul", tree, ("num", scale)), gold.tree)


def with_constant_of(gold: Tree, answer: Tree) -> Tree:
    """``answer`` with its constant of integration renamed to the gold's: x² + c becomes x² + C.

    An answer that is not a sum of a constant and terms in one variable is returned unchanged: in a + b + C, C is a
    quantity like the others.
    """
    wanted, given = free_constant(gold), free_constant(answer)
    if wanted is None or given is None or given not in CONSTANTS.get(wanted, ()) or wanted in variables(answer):
        return answer
    return ("add", *(("var", wanted) if term == ("var", given) else term for term in terms(answer)))


def free_constant(tree: Tree) -> str | None:
    """The letter of the constant in a sum of terms in one variable and a constant."""
    found = [term[1] for term in terms(tree) if term[0] == "var" and term[1] in LETTERS]
    others = variables(("add", *(term for term in terms(tree) if term != ("var", found[0])))) if found else ()
    return found[0] if len(found) == 1 and len(others) == 1 and not set(others) & LETTERS else None


def terms(tree: Tree) -> list[Tree]:
    """The terms of a sum, including those of nested sums."""
    return [term for part in tree[1:] for term in terms(part)] if tree[0] == "add" else [tree]


def same_percentage(answer: Scalar, gold: Scalar) -> bool:
    """50 % equals 0.5, and also 50, where the sign was left out; 0.5 % never equals 0.5."""
    hundredth = ("num", Fraction(1, 100))
    percent, plain = (answer.tree, gold.tree) if answer.mark == "%" else (gold.tree, answer.tree)
    if same_value(("mul", percent, hundredth), plain):
        return True
    value = Evaluator(DIGITS[0]).value(plain) if not variables(plain) else None
    return value is not None and abs(value) >= 1 and same_value(percent, plain)


def same_angle(answer: Scalar, gold: Scalar) -> bool:
    """45° equals π/4, and also 45, where the sign was left out."""
    if same_value(answer.tree, gold.tree):
        return True
    degrees, plain = (answer.tree, gold.tree) if answer.mark == "°" else (gold.tree, answer.tree)
    turn = ("mul", degrees, ("inverse", ("num", HALF_TURN)), ("var", "pi"))
    return plain_mark_free(answer, gold) and same_value(turn, plain)


def plain_mark_free(answer: Scalar, gold: Scalar) -> bool:
    return answer.unit is None and gold.unit is None and not variables(answer.tree) | variables(gold.tree)


def quotient(ratio: Ratio) -> Tree:
    return ("mul", ratio.parts[0].tree, ("inverse", ratio.parts[1].tree))


def claimed(chain: Chain, gold: Shape) -> bool:
    """Whether an equality ends in the gold and nothing in it is false or ambiguous: x = 3·4 = 12, but not 11 = 12.

    Names (``x``, ``f(2)``, words) may stand for anything. Constants must all be equal. An expression in several
    variables may be what was asked for, and so may x² or cos θ; but 2x = 3 leaves open whether 3 or x is the answer.
    """
    if any(relation not in "=≈" for relation in chain.relations):
        return False
    if "≈" in chain.relations:
        exact = chain.relations.index("≈") + 1
        chain = Chain(chain.members[:exact], chain.relations[: exact - 1], chain.names[:exact])
    values = [member for member, name in zip(chain.members, chain.names, strict=True) if name is None]
    if not values:
        return False
    final = values[-1]
    if isinstance(final, Chain) or not equivalent(final, gold):
        return False
    return all(compatible(value, final) for value in values[:-1])


def compatible(value: Shape, final: Shape) -> bool:
    """Whether an earlier member of an equality can stand before its final one."""
    if not isinstance(value, Scalar) or not isinstance(final, Scalar):
        return not isinstance(value, Opaque) and equivalent(value, final)
    names = variables(value.tree)
    if not names or variables(final.tree):
        return same_scalar(value, Scalar(final.tree, final.unit, final.mark))
    return quantity(value.tree) if len(names) == 1 else final.tree != ("num", 0)  # 2x − y + 3 = 0 is an equation


def quantity(tree: Tree) -> bool:
    """Whether an expression in one variable is a quantity one may be asked for, such as x² or cos θ."""
    return tree[0] not in ("add", "mul", "neg", "inverse") and tree[1][0] == "var" and not variables(("add", *tree[2:]))


def same_chain(answer: Shape, gold: Chain) -> bool:
    if set(gold.relations) == {"="}:
        return same_equation(answer, gold)
    if same_set(answer, gold):
        return True
    if not isinstance(answer, Chain) or len(answer.members) != 2 or len(gold.members) != 2:
        return isinstance(answer, Chain) and same_members(answer, gold)
    relation, constant = gold.relations[0], scaled(answer, gold)
    if constant is None:
        return same_members(answer, gold)
    given = answer.relations[0] if constant > 0 else FLIPPED.get(answer.relations[0], answer.relations[0])
    return given == relation


def same_members(answer: Chain, gold: Chain) -> bool:
    """The same relations between the same members, from left to right."""
    if answer.relations != gold.relations:
        return False
    return all(equivalent(a, g) for a, g in zip(answer.members, gold.members, strict=True))


def same_equation(answer: Shape, gold: Chain) -> bool:
    """Whether the equations are multiples of each other, or the answer is the value that the gold names (``x = 3``)."""
    if not isinstance(answer, Chain):
        if isinstance(answer, Words):
            return False
        value = gold_value(gold)
        return value is not None and equivalent(answer, value)
    if set(answer.relations) != {"="}:
        return False
    if len(gold.members) == len(answer.members) == 2 and scaled(answer, gold) is not None:
        return True
    value = gold_value(gold)
    same_name = one_name(answer.names[0], gold.names[0]) or len(gold.members) > 2 or gold.names[0] is None
    return value is not None and same_name and claimed(answer, value)


def one_name(a: str | None, b: str | None) -> bool:
    """Whether two names mean the same quantity: they are equal, or one is y and the other f(x)."""
    applied = any(name and re.fullmatch(r"[A-Za-z]\([a-z]\)", name) for name in (a, b))
    return a == b or (applied and "y" in (a, b))


def gold_value(gold: Chain) -> Shape | None:
    """The answer in a gold such as ``x = 3`` or ``2^2 = 4``; None for an equation such as ``x + y = 3``."""
    named = gold.names[0] is not None and not (
        isinstance(gold.members[-1], Scalar)
        and isinstance(gold.members[0], Scalar)
        and gold.members[0].tree[0] == "var"
        and gold.members[0].tree[1] in variables(gold.members[-1].tree)
    )
    constant = all(isinstance(member, Scalar) and not variables(member.tree) for member in gold.members)
    return gold.members[-1] if named or constant else None


def scaled(answer: Chain, gold: Chain) -> float | None:
    """The factor c in answer = c·gold, each taken as left − right of its relation; None if there is none."""
    sides = [*answer.members, *gold.members]
    if not all(isinstance(side, Scalar) for side in sides):
        return None
    if not variables(gold.members[0].tree) | variables(gold.members[1].tree):
        return None
    difference = [("add", left.tree, ("neg", right.tree)) for left, right in (sides[:2], sides[2:])]
    return proportional(*difference)


def matched(answer: tuple, gold: tuple) -> bool:
    """Whether the items can be paired off, in any order."""
    if len(answer) != len(gold):
        return False
    left = list(gold)
    for item in answer:
        partner = next((index for index, wanted in enumerate(left) if equivalent(item, wanted)), None)
        if partner is None:
            return False
        left.pop(partner)
    return True


def same_set(answer: Shape, gold: Shape) -> bool:
    return same_real_set(answer, gold, equivalent)


def same_sequence(answer: Shape, gold: Sequence) -> bool:
    if isinstance(answer, Sequence):
        return (
            (answer.opening, answer.closing) == (gold.opening, gold.closing)
            and len(answer.items) == len(gold.items)
            and all(equivalent(a, g) for a, g in zip(answer.items, gold.items, strict=True))
        )
    values = assigned(answer)
    if values is not None and (gold.opening, gold.closing) == ("(", ")"):
        return len(values) == len(gold.items) and all(map(equivalent, values, gold.items))
    return same_set(answer, gold)


def assigned(shape: Shape) -> list[Shape] | None:
    """The values of ``x = 1, y = 2`` in the alphabetical order of the names; None for any other shape."""
    if not isinstance(shape, Collection) or shape.joiner == "or":
        return None
    if not all(isinstance(item, Chain) and item.relations == ("=",) and item.names[0] for item in shape.items):
        return None
    named = {item.names[0]: item.members[1] for item in shape.items}
    return [named[name] for name in sorted(named)] if len(named) == len(shape.items) else None


def same_collection(answer: Shape, gold: Collection) -> bool:
    if isinstance(answer, Collection):
        return matched(answer.items, gold.items) or same_set(answer, gold)
    values = assigned(gold)
    if values is not None and isinstance(answer, Sequence) and (answer.opening, answer.closing) == ("(", ")"):
        return len(values) == len(answer.items) and all(map(equivalent, answer.items, values))
    return same_set(answer, gold)


def same_ratio(answer: Shape, gold: Ratio) -> bool:
    if isinstance(answer, Scalar) and len(gold.parts) == 2:
        return answer.unit is None and answer.mark is None and same_value(answer.tree, quotient(gold))
    if not isinstance(answer, Ratio) or len(answer.parts) != len(gold.parts):
        return False
    if answer.like_time and gold.like_time:
        return all(map(equivalent, answer.parts, gold.parts))
    first, wanted = answer.parts[0].tree, gold.parts[0].tree
    return all(
        same_value(("mul", a.tree, wanted), ("mul", first, g.tree))
        for a, g in zip(answer.parts[1:], gold.parts[1:], strict=True)
    )


def same_clock(answer: Shape, gold: Clock) -> bool:
    if isinstance(answer, Ratio) and answer.like_time:
        hour, minute = (int(part.tree[1]) for part in answer.parts)
        half_day = 1 <= hour <= 12 and (hour % 12) * 60 + minute == gold.minutes % 720
        return half_day or hour * 60 + minute == gold.minutes
    return answer == gold


def same_matrix(answer: Shape, gold: Matrix) -> bool:
    if not isinstance(answer, Matrix) or answer.determinant != gold.determinant:
        return False
    if [len(row) for row in answer.rows] != [len(row) for row in gold.rows]:
        return False
    cells = [
        (a, g) for given, wanted in zip(answer.rows, gold.rows, strict=True) for a, g in zip(given, wanted, strict=True)
    ]
    return all(equivalent(a, g) for a, g in cells)


def same_infinity(answer: Shape, gold: Infinity) -> bool:
    return answer == gold


def same_words(answer: Shape, gold: Words) -> bool:
    return answer == gold


def same_based(answer: Shape, gold: Based) -> bool:
    return answer == gold or (gold.base == 10 and equivalent(answer, Scalar(("num", Fraction(gold.digits)))))


COMPARISONS: dict[type, Callable[[Any, Any], bool]] = {
    Scalar: same_scalar,
    Chain: same_chain,
    Sequence: same_sequence,
    Collection: same_collection,
    Union: same_set,
    Intersection: same_set,
    Difference: same_set,
    Reals: same_set,
    Ratio: same_ratio,
    Clock: same_clock,
    Matrix: same_matrix,
    Infinity: same_infinity,
    Words: same_words,
    Based: same_based,
}
