"""Chain arithmetic modulo 10: the problems, how they and their solutions are written, and how they are drawn.

A problem is a start digit and a chain of operations, done from left to right:

    Left to right, mod 10: 7 Add 3 Times 4 Minus 2

and a solution has one line per operation, a blank line between two steps, and the answer in a box:

    7 Add 3 = 0

    0 Times 4 = 0

    0 Minus 2 = 8

    Answer: \\boxed{8}
"""

import random
import re
from dataclasses import dataclass
from functools import cached_property

OPERATIONS = ("Add", "Minus", "Times")
OPERANDS = (2, 3, 4, 5, 6)
FACTS = tuple((digit, operation, operand) for digit in range(10) for operation in OPERATIONS for operand in OPERANDS)
HEADER = "Left to right, mod 10: "
SEPARATOR = "\n\n"
ANSWER = "Answer: \\boxed{"
FILLERS = ("Let me check.", "So far so good.", "This looks right.")

_LINK = re.compile(rf" ({'|'.join(OPERATIONS)}) (\d)")


def result(digit: int, operation: str, operand: int) -> int:
    """One fact: ``digit operation operand`` modulo 10."""
    if operation == "Add":
        return (digit + operand) % 10
    if operation == "Minus":
        return (digit - operand) % 10
    return digit * operand % 10


def step_line(digit: int, operation: str, operand: int, outcome: int) -> str:
    """A step as it is written."""
    return f"{digit} {operation} {operand} = {outcome}"


def answer_line(digit: int) -> str:
    """The last step as it is written."""
    return f"{ANSWER}{digit}}}"


@dataclass(frozen=True)
class ChainProblem:
    """A start digit and the operations to do on it, in order."""

    start: int
    chain: tuple[tuple[str, int], ...]

    @cached_property
    def prompt(self) -> str:
        """The problem as text, its blank line included: a completion follows it directly."""
        links = "".join(f" {operation} {operand}" for operation, operand in self.chain)
        return f"{HEADER}{self.start}{links}{SEPARATOR}"

    @cached_property
    def values(self) -> tuple[int, ...]:
        """The digit after every operation."""
        values, value = [], self.start
        for operation, operand in self.chain:
            value = result(value, operation, operand)
            values.append(value)
        return tuple(values)

    @property
    def solution(self) -> str:
        """The gold answer: one digit."""
        return str(self.values[-1])

    @property
    def gold_steps(self) -> list[str]:
        """The steps of the right solution, the answer last."""
        digits = (self.start, *self.values)
        lines = [step_line(digits[i], *link, digits[i + 1]) for i, link in enumerate(self.chain)]
        return [*lines, answer_line(digits[-1])]

    @classmethod
    def parse(cls, prompt: str) -> "ChainProblem":
        """The problem a prompt states.

        Raises:
            ValueError: the text is not a chain-arithmetic prompt.
        """
        body = prompt.strip().removeprefix(HEADER)
        if not re.fullmatch(rf"\d(?:{_LINK.pattern})+", body):
            raise ValueError(f"got the prompt {prompt!r}, expected '{HEADER}7 Add 3 Times 4' or the like")
        return cls(int(body[0]), tuple((operation, int(operand)) for operation, operand in _LINK.findall(body)))


def draw_problem(rng: random.Random, operations: tuple[int, int]) -> ChainProblem:
    """A random problem with between ``operations[0]`` and ``operations[1]`` operations."""
    length = rng.randint(*operations)
    return ChainProblem(rng.randrange(10), tuple((rng.choice(OPERATIONS), rng.choice(OPERANDS)) for _ in range(length)))


def draw_splits(seed: int, operations: tuple[int, int], sizes: dict[str, int]) -> dict[str, list[ChainProblem]]:
    """Disjoint lists of distinct problems, one per name in ``sizes``.

    Every list has its own random stream and leaves out the problems of the lists before it, so that a list does not
    change when one after it grows.
    """
    seen: set[ChainProblem] = set()
    splits: dict[str, list[ChainProblem]] = {}
    for name, size in sizes.items():
        rng = random.Random(f"{name} {seed}")
        problems: list[ChainProblem] = []
        while len(problems) < size:
            problem = draw_problem(rng, operations)
            if problem not in seen:
                seen.add(problem)
                problems.append(problem)
        splits[name] = problems
    return splits
