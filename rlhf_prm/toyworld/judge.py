"""A fallible judge: it reads a solution in tagged paragraphs, as an LLM judge does, and sometimes errs."""

import random
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence

from rlhf_prm.toyworld.checker import CHAINS, Checker

_PARAGRAPH = re.compile(r"<paragraph_\d+>\n(.*?)\n?</paragraph_\d+>", re.DOTALL)


class SeededAnswers(ABC):
    """A ``Generator`` whose answers depend only on the question and the seed."""

    def generate(
        self,
        prompts: Sequence[list[dict[str, str]]],
        n: int = 1,
        *,
        seed: int | Sequence[int] | None = None,
        stop: Sequence[str] | None = None,
    ) -> list[list[str]]:
        """``n`` answers to every question; a list of seeds has one per question."""
        seeds = seed if isinstance(seed, Sequence) else [f"{seed} {i}" for i in range(len(prompts))]
        streams = [random.Random(one) for one in seeds]
        return [[self._answer(chat, rng) for _ in range(n)] for chat, rng in zip(prompts, streams, strict=True)]

    @abstractmethod
    def _answer(self, chat: list[dict[str, str]], rng: random.Random) -> str:
        """One answer to the last message."""


class FallibleJudge(SeededAnswers):
    """A ``Generator`` that answers the judge's question in the form of arXiv 2501.07301.

    It reads one paragraph after the other, takes earlier ones as they are, and stops at the first it believes
    to be wrong. Half of its errors are random. The other half is systematic: about certain lines, the same for every
    solution, it is always mistaken.

    Args:
        flips: share of verdicts on operations that are wrong; on other lines only the random half occurs.
        seed: decides about which lines it is mistaken.
        checker: the world's whose solutions it reads; the toy world's by default.
    """

    def __init__(self, flips: float, seed: int, checker: Checker = CHAINS) -> None:
        self.flips, self.seed, self.checker = flips, seed, checker

    def _answer(self, chat: list[dict[str, str]], rng: random.Random) -> str:
        question = chat[-1]["content"]
        problem, steps = self.checker.problem_in(question), _PARAGRAPH.findall(question)
        if problem is None or not steps:
            raise ValueError(
                "this judge knows problems of its own world and steps in <paragraph_n> tags only, "
                f"got {question[:80]!r}"
            )
        analyses = []
        for number, (step, right) in enumerate(zip(steps, self.checker.verdicts(problem, steps), strict=True), 1):
            believed = right != self._errs(step, rng)
            analysis = "This holds." if believed else "This is wrong."
            analyses.append(f"<analysis_{number}>\n{analysis}\n</analysis_{number}>")
            if not believed:
                break
        conclusion = "Correct" if believed else "Incorrect"
        return "\n\n".join([*analyses, f"<conclusion>\n{conclusion}\n</conclusion>"])

    def _errs(self, step: str, rng: random.Random) -> bool:
        fact = self.checker.fact(step)
        systematic = fact is not None and self._opinion(fact) < self.flips / 2
        return systematic or rng.random() < self.flips / 2

    def _opinion(self, fact: str) -> float:
        return random.Random(f"judge {self.seed} {fact}").random()
