"""The value of a tree: exact if it is rational, else to many digits. It refuses operands that would make it slow."""

from collections.abc import Callable
from fractions import Fraction
from math import factorial, gcd, lcm
from typing import Any

import mpmath

from reward.verifier.answers.grammar import Tree
from reward.verifier.answers.tokens import Unreadable

MAX_BITS = 4_096  # of an exact rational
MAX_MAGNITUDE = 10**6  # |log2| of any value
Value = Any  # Fraction | mpf | mpc


class Undefined(ArithmeticError):
    """The tree has no value, for example because it divides by zero."""


class Evaluator:
    """Evaluates trees at one precision. Variables come from ``point``."""

    def __init__(self, digits: int, point: dict[str, Fraction] | None = None):
        self.context = mpmath.MPContext()
        self.context.dps = digits + 15
        self.point = point or {}

    def value(self, tree: Tree) -> Value:
        """The value of a tree.

        Raises:
            Undefined: it has none. Unreadable: it is too large, or too slow to compute.
        """
        kind = tree[0]
        if kind == "num":
            return tree[1]
        if kind == "var":
            return self.variable(tree[1])
        operands = [self.value(child) for child in tree[1:]]
        try:
            result = self.apply(kind, tree, operands)
        except ZeroDivisionError as error:
            raise Undefined(kind) from error
        except (ValueError, OverflowError, mpmath.libmp.NoConvergence) as error:
            if isinstance(error, Unreadable):
                raise
            raise Undefined(kind) from error
        return self.checked(result)

    def apply(self, kind: str, tree: Tree, operands: list[Value]) -> Value:
        if kind == "add":
            return self.fold(operands, lambda a, b: a + b)
        if kind == "mul":
            return self.fold(operands, lambda a, b: a * b)
        if kind == "neg":
            return -operands[0]
        if kind == "inverse":
            return 1 / operands[0]
        if kind == "degrees":
            return operands[0]
        if kind == "pow":
            return self.power(*operands)
        if kind == "root":
            return self.root(*operands)
        if kind in TRIGONOMETRIC:
            angle = self.lift(operands[0])
            return TRIGONOMETRIC[kind](self.context, angle * self.context.pi / 180 if in_degrees(tree[1]) else angle)
        if kind in INTEGER_FUNCTIONS:
            return Fraction(INTEGER_FUNCTIONS[kind](*(self.integer(operand) for operand in operands)))
        return FUNCTIONS[kind](self, *operands)

    def variable(self, name: str) -> Value:
        if name == "pi":
            return +self.context.pi
        if name == "e":
            return +self.context.e
        if name == "i":
            return self.context.mpc(0, 1)
        return self.point[name]

    def fold(self, operands: list[Value], operation: Callable[[Value, Value], Value]) -> Value:
        total = operands[0]
        for operand in operands[1:]:
            if isinstance(total, Fraction) != isinstance(operand, Fraction):
                total, operand = self.lift(total), self.lift(operand)
            total = self.checked(operation(total, operand))
        return total

    def lift(self, value: Value) -> Value:
        """A rational as a float of this precision."""
        if isinstance(value, Fraction):
            return self.context.mpf(value.numerator) / value.denominator
        return value

    def checked(self, value: Value) -> Value:
        if isinstance(value, Fraction):
            bits = max(value.numerator.bit_length(), value.denominator.bit_length())
            return value if bits <= MAX_BITS else self.lift(value)
        if not self.context.isfinite(value):
            raise Undefined("not finite")
        if value != 0 and abs(self.context.mag(value)) > MAX_MAGNITUDE:
            raise Unreadable("a number too large to compare")
        return value

    def integer(self, value: Value) -> int:
        if not isinstance(value, Fraction) or value.denominator != 1:
            raise Undefined("not a whole number")
        return value.numerator

    def power(self, base: Value, exponent: Value) -> Value:
        whole = isinstance(exponent, Fraction) and exponent.denominator == 1
        if isinstance(base, Fraction) and whole:
            bits = max(base.numerator.bit_length(), base.denominator.bit_length())
            if bits * abs(exponent) <= MAX_BITS:
                return base**exponent.numerator
        base, power = self.lift(base), exponent.numerator if whole else self.lift(exponent)
        if base == 0:
            if self.context.re(power) > 0:
                return Fraction(0)
            raise Undefined("zero to a power that is not positive")
        if abs(self.lift(exponent)) * max(1, abs(self.context.mag(base))) > MAX_MAGNITUDE:
            raise Unreadable("a power too large to compare")
        return base**power

    def root(self, radicand: Value, degree: Value) -> Value:
        index = self.integer(degree)
        if not 2 <= index <= 1000:
            raise Unreadable(f"root of degree {index}")
        value = self.lift(radicand)
        if self.context.im(value) == 0 and self.context.re(value) < 0 and index % 2:
            return -self.context.root(-value, index)
        return self.context.root(value, index)

    def factorial(self, value: Value) -> Value:
        lifted = self.lift(value)
        if abs(lifted) > 10**5:
            raise Unreadable("a factorial too large to compare")
        if isinstance(value, Fraction) and value.denominator == 1 and 0 <= value <= 200:
            return Fraction(factorial(value.numerator))
        return self.context.factorial(lifted)

    def binomial(self, top: Value, bottom: Value) -> Value:
        if max(abs(self.lift(top)), abs(self.lift(bottom))) > 10**5:
            raise Unreadable("a binomial too large to compare")
        return self.context.binomial(self.lift(top), self.lift(bottom))

    def logarithm(self, value: Value, base: Value | None = None) -> Value:
        if value == 0:
            raise Undefined("logarithm of zero")
        natural = self.context.log(self.lift(value))
        return natural if base is None else natural / self.context.log(self.lift(base))

    def rounded(self, value: Value, direction: str) -> Value:
        if isinstance(value, Fraction):
            return Fraction(value.__floor__() if direction == "floor" else value.__ceil__())
        if self.context.mag(value) > 200:
            raise Unreadable("rounding of a number too large")
        return Fraction(int(getattr(self.context, direction)(value)))

    def extreme(self, choose: Callable, *values: Value) -> Value:
        return choose(values, key=lambda value: self.context.re(self.lift(value)))


def in_degrees(tree: Tree) -> bool:
    return tree[0] == "degrees" or (tree[0] not in ("num", "var") and any(in_degrees(child) for child in tree[1:]))


TRIGONOMETRIC: dict[str, Callable] = {
    name: (lambda context, angle, name=name: getattr(context, name)(angle))
    for name in ("sin", "cos", "tan", "cot", "sec", "csc")
}
INTEGER_FUNCTIONS: dict[str, Callable[..., int]] = {"gcd": gcd, "lcm": lcm}
FUNCTIONS: dict[str, Callable[..., Value]] = {
    **{
        name: (lambda at, x, call=call: getattr(at.context, call)(at.lift(x)))
        for name, call in {
            **{"arcsin": "asin", "arccos": "acos", "arctan": "atan", "exp": "exp"},
            **{name: name for name in ("sinh", "cosh", "tanh")},
        }.items()
    },
    "abs": lambda at, x: abs(x),
    "floor": lambda at, x: at.rounded(x, "floor"),
    "ceil": lambda at, x: at.rounded(x, "ceil"),
    "factorial": Evaluator.factorial,
    "binom": Evaluator.binomial,
    "ln": Evaluator.logarithm,
    "log": Evaluator.logarithm,
    "lg": lambda at, x: at.logarithm(x, Fraction(10)),
    "max": lambda at, *values: at.extreme(max, *values),
    "min": lambda at, *values: at.extreme(min, *values),
}
