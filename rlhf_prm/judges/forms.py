"""How a judge is asked about a solution, and how its answer is parsed. Parsing is strict.

``paper``: the form of 2501.07301. Paragraphs are tagged and counted from 1; the judge analyses one after the other,
stops at the first wrong one, and concludes. The first error is the last paragraph it analysed.
``processbench``: the critic of ProcessBench (2412.06559). Paragraphs are counted from 0; the answer is the index of the
first wrong one in a box, −1 when there is none.
``verdicts``: a verdict on every paragraph, each judged on the ones before it as they stand, errors included.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rlhf_prm.statistics import first_error

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


VERDICTS_PROMPT = """Below are a mathematics problem and a solution cut into numbered paragraphs.

[Math Problem]

{problem}

[Solution]

{paragraphs}

Judge every paragraph, in order and to the last. Recompute its calculations and question its inferences. A paragraph \
is correct if it follows from the problem and the paragraphs before it, taken as they stand, even where one of those \
is wrong. After your analysis end with one line per paragraph, in exactly this form:

<verdicts>
1: correct or incorrect
2: correct or incorrect
...
</verdicts>"""

_VERDICT = re.compile(r"(?:paragraph\s+)?([0-9]{1,4})\s*[:.)]\s*(correct|incorrect)\.?", re.IGNORECASE)
_ANALYSIS_TAG = re.compile(r"<(/?)analysis_([0-9]{1,4})>")


class UnparseableAnswer(ValueError):
    """The judge's answer does not have the form it was asked for; the message says where it differs."""


@dataclass(frozen=True)
class JudgeForm:
    """A prompt with places for ``{problem}`` and ``{paragraphs}``, the number of its first paragraph, and its parser.

    ``parse(answer, num_steps)`` gives the 0-based index of the first wrong step, −1 for none, or raises
    ``UnparseableAnswer``. ``read`` is for forms that give more than that: it returns all step scores.
    """

    prompt: str
    first_number: int
    parse: Callable[[str, int], int]
    read: Callable[[str, int], list[float]] | None = None

    def scores(self, problem: str, steps: Sequence[str], answer: str) -> list[float]:
        """One score per step: 1 = right, 0 = wrong, NaN = the answer does not mention it.

        Raises:
            UnparseableAnswer: as the parser.
        """
        if self.read is not None:
            return self.read(answer, len(steps))
        error = self.parse(answer, len(steps))
        if error < 0:
            return [1.0] * len(steps)
        return [1.0] * error + [0.0] + [math.nan] * (len(steps) - error - 1)

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
    """The text after a reasoning model's ``</think>``.

    Raises:
        UnparseableAnswer: there is no answer, or the thoughts never end.
    """
    if not answer.strip():
        raise UnparseableAnswer("an empty answer; a reasoning model that runs out of max_tokens gives one")
    if "<think>" in answer and "</think>" not in answer:
        raise UnparseableAnswer("it ends inside <think>")
    return answer.rpartition("</think>")[2]


def parse_analyses(answer: str, num_steps: int) -> int:
    """First error (0-based, −1 = none) of an answer in the paper's form.

    Raises:
        UnparseableAnswer: not exactly one conclusion of one word at the end; analyses other than 1, 2, …, m with
            1 ≤ m ≤ ``num_steps``, each with text in it; or "Correct" although some paragraphs were not analysed.
    """
    answer = without_thoughts(answer)
    analyses, opened, rest = answer.partition("<conclusion>")
    if not opened or "<conclusion>" in rest or rest.count("</conclusion>") != 1:
        raise UnparseableAnswer("not exactly one <conclusion>…</conclusion>")
    conclusion, _, after = rest.partition("</conclusion>")
    verdict = conclusion.strip().strip("*\"'.").strip().lower()
    if verdict not in ("correct", "incorrect"):
        raise UnparseableAnswer(f"conclusion {conclusion.strip()[:40]!r}, expected Correct or Incorrect")
    if _ANALYSIS_TAG.search(after):
        raise UnparseableAnswer("an analysis after the conclusion")
    count = _analyses(analyses)
    if not 1 <= count <= num_steps:
        raise UnparseableAnswer(f"{count} analyses of {num_steps} paragraphs")
    if verdict == "correct" and count != num_steps:
        raise UnparseableAnswer(f"Correct after {count} of {num_steps} paragraphs")
    return -1 if verdict == "correct" else count - 1


def _analyses(text: str) -> int:
    """How many analyses the text holds; they are 1, 2, … in order, closed and not empty, or it raises."""
    tags = list(_ANALYSIS_TAG.finditer(text))
    found = [(tag[1], tag[2]) for tag in tags]
    wanted = [(slash, str(number)) for number in range(1, len(tags) // 2 + 1) for slash in ("", "/")]
    if found != wanted:
        raise UnparseableAnswer(f"analysis tags {' '.join(tag[0] for tag in tags)[:120]}, expected 1, 2, … each closed")
    for start, end in zip(tags[::2], tags[1::2], strict=True):
        if not text[start.end() : end.start()].strip():
            raise UnparseableAnswer(f"analysis {start[2]} is empty")
    return len(tags) // 2


def parse_boxed_index(answer: str, num_steps: int) -> int:
    """First error (0-based, −1 = none) of a ProcessBench critic: the integer in the last box.

    Raises:
        UnparseableAnswer: no box, something else than an integer in the last one, or an index that no paragraph has.
    """
    answer = without_thoughts(answer)
    start = answer.rfind("\\boxed")
    if start < 0:
        raise UnparseableAnswer("no \\boxed{} with an index")
    box = re.match(r"\\boxed\s*\{\s*([-−]?[0-9]{1,6})\s*\}", answer[start:])
    if box is None:
        raise UnparseableAnswer(f"last box {answer[start : start + 40]!r}, expected an integer")
    index = int(box[1].replace("−", "-"))
    if not -1 <= index < num_steps:
        raise UnparseableAnswer(f"index {index} for paragraphs 0 to {num_steps - 1}")
    return index


def read_verdicts(answer: str, num_steps: int) -> list[float]:
    """1 or 0 for every paragraph of an answer in the form ``verdicts``.

    Raises:
        UnparseableAnswer: there is not exactly one list of verdicts, or not exactly one for each of 1 … ``num_steps``.
    """
    answer = without_thoughts(answer)
    if answer.count("<verdicts>") != 1 or answer.count("</verdicts>") != 1:
        raise UnparseableAnswer("not exactly one <verdicts>…</verdicts>")
    listed = answer.partition("<verdicts>")[2].partition("</verdicts>")[0]
    lines = [line.replace("*", "").strip() for line in listed.splitlines() if line.strip()]
    matches = [_VERDICT.fullmatch(line) for line in lines]
    for line, match in zip(lines, matches, strict=True):
        if match is None:
            raise UnparseableAnswer(f"verdict {line[:40]!r}, expected a line such as '1: correct'")
    numbers = [int(match[1]) for match in matches]
    if numbers != list(range(1, num_steps + 1)):
        raise UnparseableAnswer(f"verdicts on paragraphs {str(numbers)[:60]}, expected 1 to {num_steps} in order")
    return [float(match[2].lower() == "correct") for match in matches]


def parse_verdicts(answer: str, num_steps: int) -> int:
    """First error (0-based, −1 = none) of an answer in the form ``verdicts``.

    Raises:
        UnparseableAnswer: as ``read_verdicts``.
    """
    return first_error([bool(score) for score in read_verdicts(answer, num_steps)])


FORMS: dict[str, JudgeForm] = {
    "paper": JudgeForm(PAPER_PROMPT, 1, parse_analyses),
    "processbench": JudgeForm(CRITIC_PROMPT, 0, parse_boxed_index),
    "verdicts": JudgeForm(VERDICTS_PROMPT, 1, parse_verdicts, read_verdicts),
}
