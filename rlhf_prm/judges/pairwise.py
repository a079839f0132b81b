"""A judge compares solutions two by two, and a knock-out finds the best of N.

arXiv 2501.07301, appendix B.5: N − 1 comparisons choose one of N samples. Which of the two is shown first is random,
because a judge may prefer a position.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from rlhf_prm.generation.requests import unit_seed
from rlhf_prm.generation.tasks import Task
from rlhf_prm.judges.forms import UnparseableAnswer, without_thoughts
from rlhf_prm.judges.votes import ask_until_parsed

PAIR_PROMPT = """Below are a mathematics problem and two solutions of it, A and B.

[Math Problem]

{problem}

[Solution A]

<solution_A>
{first}
</solution_A>

[Solution B]

<solution_B>
{second}
</solution_B>

Check both solutions step by step and compare them. The better one has the right answer by a sound derivation; if both \
or neither have, it is the one with fewer or later errors. End your answer with the letter of the better solution, and \
nothing but the letter, inside \\boxed{}."""

_LETTER = re.compile(r"\\boxed\{\s*(?:\\text\{)?\s*([AB])\s*\}?\s*\}")


@dataclass(frozen=True)
class Knockout:
    """Who won (an index of the solutions), how often the judge was asked, how many comparisons could not be read."""

    winner: int
    asked: int
    unreadable: int


def pair_messages(problem: str, first: str, second: str) -> list[dict[str, str]]:
    """The question about two solutions, as a chat."""
    text, parts = "", {"{problem}": problem, "{first}": first, "{second}": second}
    for piece in re.split(r"(\{problem\}|\{first\}|\{second\})", PAIR_PROMPT):
        text += parts.get(piece, piece)
    return [{"role": "user", "content": text}]


def read_letter(answer: str) -> int:
    """0 for A, 1 for B, as the last box of the answer says.

    Raises:
        UnparseableAnswer: no box with one of the two letters.
    """
    found = _LETTER.findall(without_thoughts(answer))
    if not found:
        raise UnparseableAnswer("expected \\boxed{A} or \\boxed{B}")
    return "AB".index(found[-1])


def knockout(problem: str, solutions: Sequence[str], seed: int, attempts: int = 2) -> Task:
    """The best of the solutions, by N − 1 comparisons; returns a ``Knockout``.

    The order of the first round is drawn by ``seed``; a solution without an opponent advances. Of two equal
    texts the first advances without a question. A comparison that cannot be read is decided at random.
    """
    rng = random.Random(unit_seed(seed, "knockout", problem, *solutions))
    left = rng.sample(range(len(solutions)), len(solutions))
    asked = unreadable = 0
    while len(left) > 1:
        winners = []
        for first, second in zip(left[::2], left[1::2], strict=False):
            if solutions[first] == solutions[second]:
                winners.append(min(first, second))
                continue
            coin = rng.randrange(2)
            asked += 1
            answered = yield from ask_until_parsed(
                pair_messages(problem, solutions[first], solutions[second]),
                read_letter,
                attempts,
                lambda attempt, pair=(first, second): unit_seed(seed, "pair", problem, *pair, attempt),
                group=problem,
            )
            unreadable += answered.value is None
            winners.append((first, second)[coin if answered.value is None else answered.value])
        left = winners + ([left[-1]] if len(left) % 2 else [])
    return Knockout(left[0], asked, unreadable)
