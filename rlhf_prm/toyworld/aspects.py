"""The toy world's small questions: whether a step's calculation, inference and use of the givens are right;
and a toy judge that is better at some of them than at others."""

import random
import re
from collections.abc import Mapping, Sequence

from rlhf_prm.judges.decomposed import ASPECTS
from rlhf_prm.toyworld.checker import step_facts
from rlhf_prm.toyworld.judge import SeededAnswers
from rlhf_prm.toyworld.problems import FILLERS, HEADER, SEPARATOR, ChainProblem, result

_ANSWER = re.compile(r"Answer: \\boxed\{(\d)\}")
_PARAGRAPH = re.compile(r"<paragraph_\d+>\n(.*?)\n?</paragraph_\d+>", re.DOTALL)
_PROBLEM = re.compile(rf"^{re.escape(HEADER)}.*$", re.MULTILINE)
TOY_MARKS = {  # words of the toy language, which has no words for the questions themselves
    name: filler + SEPARATOR for name, filler in zip(ASPECTS, FILLERS, strict=True)
}


def aspect_verdicts(problem: ChainProblem | str, steps: Sequence[str]) -> list[dict[str, bool]]:
    """Whether each step is right in each respect, given the steps before it as they are.

    A step is right in all of them exactly where ``checker.step_verdicts`` calls it right.
    """
    problem = problem if isinstance(problem, ChainProblem) else ChainProblem.parse(problem)
    chain, digit, done, answered, verdicts = problem.chain, problem.start, 0, False, []
    for step in steps:
        text = step.strip()
        facts, answer = step_facts(text), _ANSWER.fullmatch(text)
        if answered or not (facts or answer or text in FILLERS):
            verdicts.append({"calculation": True, "inference": False, "givens": True})
        elif answer:
            answered = True
            verdicts.append({"calculation": True, "inference": int(answer[1]) == digit, "givens": done == len(chain)})
        elif facts:
            start, operation, operand, stated = facts
            verdicts.append(
                {
                    "calculation": stated == result(start, operation, operand),
                    "inference": start == digit,
                    "givens": chain[done : done + 1] == ((operation, operand),),
                }
            )
            digit = stated
            done = chain.index((operation, operand), done) + 1 if (operation, operand) in chain[done:] else done + 1
        else:
            verdicts.append({"calculation": True, "inference": True, "givens": True})
    return verdicts


class AspectJudge(SeededAnswers):
    """A ``Generator`` that answers the small questions of ``judges.decomposed`` about toy solutions.

    Half of its errors are random, half systematic: about certain lines it is always mistaken in a respect.

    Args:
        flips: for each aspect the share of its verdicts on operations that are wrong; on other lines only the random
            half occurs.
        seed: decides about which lines it is mistaken.
    """

    def __init__(self, flips: Mapping[str, float], seed: int) -> None:
        self.flips, self.seed = dict(flips), seed

    def _answer(self, chat: list[dict[str, str]], rng: random.Random) -> str:
        question = chat[-1]["content"]
        problem, steps = _PROBLEM.search(question), _PARAGRAPH.findall(question)
        aspect = next((name for name, text in ASPECTS.items() if text in question), None)
        if problem is None or not steps or aspect is None:
            raise ValueError(f"the toy judge knows small questions about toy solutions only, got {question[:80]!r}")
        right = aspect_verdicts(problem[0], steps)[-1][aspect]
        half = self.flips[aspect] / 2
        opinion = random.Random(f"aspects {self.seed} {aspect} {steps[-1].strip()}").random()
        mistaken = (step_facts(steps[-1]) is not None and opinion < half) or rng.random() < half
        return f"\\boxed{{{'correct' if right != mistaken else 'incorrect'}}}"
