"""The toy judge, comparing two solutions."""

import random
import re
from collections.abc import Sequence

from rlhf_prm.statistics import first_error
from rlhf_prm.steps import StepSplitter
from rlhf_prm.toyworld.checker import step_verdicts
from rlhf_prm.toyworld.judge import FallibleJudge
from rlhf_prm.toyworld.problems import HEADER, SEPARATOR

_SOLUTION = re.compile(r"<solution_[AB]>\n(.*?)\n</solution_[AB]>", re.DOTALL)
_PROBLEM = re.compile(rf"^{re.escape(HEADER)}.*$", re.MULTILINE)


class ToyPairJudge(FallibleJudge):
    """A ``FallibleJudge`` that also answers which of two solutions is better (``judges.pairwise``).

    It prefers the one in which it believes the first wrong step to come later, or not at all; of two alike it names one
    at random. It errs about single steps as often as it does when it judges solutions alone.
    """

    def _answer(self, chat: list[dict[str, str]], rng: random.Random) -> str:
        question = chat[-1]["content"]
        solutions, problem = _SOLUTION.findall(question), _PROBLEM.search(question)
        if len(solutions) != 2 or problem is None:
            return super()._answer(chat, rng)
        ends = [self._holds_until(problem[0], StepSplitter(SEPARATOR).split(text), rng) for text in solutions]
        better = rng.randrange(2) if ends[0] == ends[1] else ends.index(max(ends))
        return f"\\boxed{{{'AB'[better]}}}"

    def _holds_until(self, problem: str, steps: Sequence[str], rng: random.Random) -> float:
        """The share of the steps before the first that it believes to be wrong; 1 for none."""
        verdicts = step_verdicts(problem, steps)
        believed = [right != self._errs(step, rng) for step, right in zip(steps, verdicts, strict=True)]
        error = first_error(believed)
        return 1.0 if error < 0 else error / len(steps)
