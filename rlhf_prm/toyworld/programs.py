"""A tiny Python world: small functions with random numbers in them, and their tests.

The programs are the code counterpart of chain arithmetic: their step labels come from mutants that the tests kill.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rlhf_prm.annotate.mutations import Program


@dataclass(frozen=True)
class Template:
    """A task and its program with places ``A`` and ``B`` for two numbers, and inputs to test it with."""

    problem: str
    code: str
    inputs: Callable[[random.Random], Any]


def _numbers(rng: random.Random) -> list[int]:
    return [rng.randint(-9, 20) for _ in range(rng.randint(0, 7))]


def _number(rng: random.Random) -> int:
    return rng.randint(0, 30)


TEMPLATES = (
    Template(
        "Add up the numbers of a list that are greater than A, and add B.",
        "def f(x):\n    total = B\n    for n in x:\n        if n > A:\n            total = total + n\n    return total",
        _numbers,
    ),
    Template(
        "Count the numbers of a list that leave the rest A when divided by B.",
        "def f(x):\n    count = 0\n    for n in x:\n        if n % B == A % B:\n"
        "            count = count + 1\n    return count",
        _numbers,
    ),
    Template(
        "Give the largest number of a list, times A, or B for an empty list.",
        "def f(x):\n    if len(x) == 0:\n        return B\n    best = x[0]\n    for n in x:\n        if n > best:\n"
        "            best = n\n    return best * A",
        _numbers,
    ),
    Template(
        "Add one to a number, multiply it by A + 1 until it is 50 or more, and say how often, plus B.",
        "def f(x):\n    x = x + 1\n    steps = B\n    while x < 50:\n        x = x * (A + 1)\n"
        "        steps = steps + 1\n"
        "    return steps",
        _number,
    ),
    Template(
        "Say whether a number lies between A and A + B, ends included.",
        "def f(x):\n    low = A\n    high = low + B\n    return low <= x and x <= high",
        _number,
    ),
    Template(
        "Add every A-th number of a list, beginning with the first, and take B away.",
        "def f(x):\n    total = 0\n    i = 0\n    while i < len(x):\n        total = total + x[i]\n        i = i + A\n"
        "    return total - B",
        _numbers,
    ),
    Template(
        "Clip a number to at least A and at most A + B.",
        "def f(x):\n    if x < A:\n        return A\n    if x > A + B:\n        return A + B\n    return x",
        _number,
    ),
    Template(
        "Add the digits of a number, A times, plus B.",
        "def f(x):\n    total = 0\n    while x > 0:\n        total = total + x % 10\n        x = x // 10\n"
        "    return total * A + B",
        lambda rng: rng.randint(0, 9999),
    ),
)


def draw_programs(seed: int, count: int, tests: int = 8) -> list[Program]:
    """``count`` programs of the templates in turn, with drawn numbers, ``tests`` assertions each."""
    programs = []
    for index in range(count):
        rng, template = random.Random(f"program {seed} {index}"), TEMPLATES[index % len(TEMPLATES)]
        values = {"A": str(rng.randint(2, 9)), "B": str(rng.randint(2, 9))}
        code, problem = (_filled(text, values) for text in (template.code, template.problem))
        namespace: dict[str, Any] = {}
        exec(code, namespace)  # our own eight programs, to know what they give
        inputs = [template.inputs(rng) for _ in range(tests)]
        asserted = "\n".join(f"assert f({one!r}) == {namespace['f'](one)!r}" for one in inputs)
        programs.append(Program(problem, code, asserted))
    return programs


def _filled(text: str, values: dict[str, str]) -> str:
    return re.sub(r"\b[AB]\b", lambda match: values[match[0]], text)
