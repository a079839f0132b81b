"""Compares sums, products, integrals, limits and determinants, through latex2sympy2_extended and sympy.

sympy limits neither its time nor its memory. A comparison is therefore stopped after half a second of CPU time, and it
runs only in a worker process, whose deadline and memory limit also hold while the interpreter is busy in C code.
"""

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import sympy
from latex2sympy2_extended import latex2sympy

from reward.verifier.answers.values import POINTS, points

MAX_LENGTH = 300
MAX_NUMBER = 7  # digits: with a longer bound or exponent the comparison would only time out
DIGITS = 30
CPU_SECONDS = 0.5


class OutOfTime(BaseException):
    """The CPU time for one comparison is used up. It is not an `Exception`, because sympy catches those."""


@contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """Raise `OutOfTime` after ``seconds`` of CPU time of this process; no effect outside the main thread (signals)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def warm_up() -> None:
    """Have the reader build its tables, which takes half a second, before the first answer comes."""
    latex2sympy(r"\sum_{n=1}^{2} \frac{n}{2}").doit()


def to_sympy(text: str) -> sympy.Basic | None:
    """The sympy expression of an answer; None where the reader fails."""
    if len(text) > MAX_LENGTH or re.search(rf"[0-9]{{{MAX_NUMBER + 1},}}", text):
        return None
    text = re.sub(r"\\[dtc]frac", r"\\frac", text.strip().strip("$"))
    text = re.sub(r"\\frac\s*([0-9a-zA-Z])\s*([0-9a-zA-Z])", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\frac\s*(\\pi)\s*([0-9])", r"\\frac{\1}{\2}", text)
    try:
        return latex2sympy(text)
    except Exception:  # text a model wrote; the reader raises its parser's and sympy's own exceptions
        return None


def same_expression(answer: str, gold: str) -> bool | None:
    """Whether two expressions are equal to 30 digits, at sample points if they have variables; None if unknown.

    Raises:
        OutOfTime: after `CPU_SECONDS`.
    """
    with cpu_limit(CPU_SECONDS):
        return _same_expression(answer, gold)


def _same_expression(answer: str, gold: str) -> bool | None:
    both = [to_sympy(text) for text in (answer, gold)]
    known = [expression for expression in both if isinstance(expression, sympy.Expr)]
    if len(known) < len(both):
        return None
    answer_value, gold_value = (expression.doit() for expression in known)
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
