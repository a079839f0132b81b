"""How a judge is asked about a solution, and how its answer is read: strictly, or not at all.

``paper``: the form of 2501.07301. Paragraphs are tagged and counted from 1; the judge analyses one after the other,
stops at the first wrong one, and concludes. The first error is the last paragraph it analysed.
``processbench``: the critic of ProcessBench (2412.06559). Paragraphs are counted from 0; the answer is the index of the
first wrong one in a box, −1 when there is none.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

PAPER_PROMPT = """Below are a mathematics problem and a solution cut into numbered paragraphs.

[Math Problem]

{problem}

[Solution]

{paragraphs}

Check the paragraphs one after the other, in order. Recompute every calculation and question every inference. If a \
paragraph contains an error, say what is wrong and what would be right, look at no paragraph after it, and conclude \
"Incorrect". If all paragraphs hold, conclude "Correct". Answer in exactly this form, with one analysis per paragraph \
you checked:

<analysis_1>
(your analysis of paragraph 1)
</analysis_1>

...

<analysis_n>
(your analysis of paragraph n)
</analysis_n>

<conclusion>
Correct or Incorrect
</conclusion>"""

CRITIC_PROMPT = """Below are a mathematics problem and a solution cut into paragraphs, tagged and numbered from 0.

[Math Problem]

{problem}

[Solution]

{paragraphs}

Review the solution paragraph by paragraph. Find the earliest paragraph that contains an error and give its index. If \
no paragraph contains an error, the index is -1 (short for "not found"). End your answer with the index, and nothing \
but the index, inside \\boxed{}."""


class UnparseableAnswer(ValueError):
    """The judge's answer does not have the form it was asked for, and where it departs from it."""


@dataclass(frozen=True)
class JudgeForm:
    """A prompt with places for ``{problem}`` and ``{paragraphs}``, the number of its first paragraph, and its parser.

    ``parse(answer, num_steps)`` gives the 0-based index of the first wrong step, −1 for none, or raises
    ``UnparseableAnswer``.
    """

    prompt: str
    first_number: int
    parse: Callable[[str, int], int]

    def messages(self, problem: str, steps: Sequence[str]) -> list[dict[str, str]]:
        """The chat to send."""
        tagged = (
            f"<paragraph_{number}>\n{step}\n</paragraph_{number}>"
            for number, step in enumerate(steps, self.first_number)
        )
        before, _, after = self.prompt.partition("{paragraphs}")
        text = before.replace("{problem}", problem) + "\n\n".join(tagged) + after.replace("{problem}", problem)
        return [{"role": "user", "content": text}]


def without_thoughts(answer: str) -> str:
    """What follows a reasoning model's ``</think>``.

    Raises:
        UnparseableAnswer: the thoughts never end.
    """
    if "<think>" in answer and "</think>" not in answer:
        raise UnparseableAnswer("it ends inside <think>")
    return answer.rpartition("</think>")[2]


def parse_analyses(answer: str, num_steps: int) -> int:
    """First error (0-based, −1 = none) of an answer in the paper's form.

    Raises:
        UnparseableAnswer: no single conclusion of one word, analyses that are not 1, 2, …, m with m ≤ ``num_steps``, or
            "Correct" although some paragraphs were not analysed.
    """
    answer = without_thoughts(answer)
    conclusions = re.findall(r"<conclusion>(.*?)</conclusion>", answer, re.DOTALL)
    if len(conclusions) != 1:
        raise UnparseableAnswer(f"{len(conclusions)} conclusions, expected 1")
    verdict = conclusions[0].strip().strip("*\"'.").strip().lower()
    if verdict not in ("correct", "incorrect"):
        raise UnparseableAnswer(f"conclusion {conclusions[0].strip()[:40]!r}, expected Correct or Incorrect")
    opened = [int(number) for number in re.findall(r"<analysis_(\d+)>", answer)]
    closed = [int(number) for number in re.findall(r"</analysis_(\d+)>", answer)]
    if opened != closed or opened != list(range(1, len(opened) + 1)):
        raise UnparseableAnswer(f"analyses {opened} opened and {closed} closed, expected 1, 2, … in order")
    if not 1 <= len(opened) <= num_steps:
        raise UnparseableAnswer(f"{len(opened)} analyses of {num_steps} paragraphs")
    if answer.rfind("</analysis_") > answer.find("<conclusion>"):
        raise UnparseableAnswer("an analysis after the conclusion")
    if verdict == "incorrect":
        return len(opened) - 1
    if len(opened) != num_steps:
        raise UnparseableAnswer(f"Correct after {len(opened)} of {num_steps} paragraphs")
    return -1


def parse_boxed_index(answer: str, num_steps: int) -> int:
    """First error (0-based, −1 = none) of a ProcessBench critic: the integer in the last box.

    Raises:
        UnparseableAnswer: no box, no integer in it, or an index that no paragraph has.
    """
    boxes = re.findall(r"\\boxed\s*\{([^{}]*)\}", without_thoughts(answer))
    if not boxes:
        raise UnparseableAnswer("no \\boxed{} with an index")
    content = boxes[-1].strip().replace("−", "-")
    if not re.fullmatch(r"-?\d+", content):
        raise UnparseableAnswer(f"box {content[:40]!r}, expected an integer")
    if not -1 <= int(content) < num_steps:
        raise UnparseableAnswer(f"index {content} for paragraphs 0 to {num_steps - 1}")
    return int(content)


FORMS: dict[str, JudgeForm] = {
    "paper": JudgeForm(PAPER_PROMPT, 1, parse_analyses),
    "processbench": JudgeForm(CRITIC_PROMPT, 0, parse_boxed_index),
}
