"""How each family of generative PRMs is shown a solution and where its verdict is read. A new family is one entry here.

A generative PRM writes a critique that says which steps are right. Its prompt is part of the checkpoint: it was trained
on these words. The verdict is a token's probability if the backend gives it (transformers and vLLM in process), and
otherwise the critique's own words: then use several votes. Code in a critique is never run.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rlhf_prm.generation.requests import Choose, Prompt
from rlhf_prm.generation.tasks import Task
from rlhf_prm.judges.forms import UnparseableAnswer
from rlhf_prm.judges.readers import Reading, seeds_from
from rlhf_prm.judges.votes import ask_until_parsed
from rlhf_prm.prm.render import numbered

YES_NO = ("Yes", "No")

THINKPRM_PROMPT = """You are given a math problem and a proposed step-by-step solution:

[Math Problem]

{problem}

[Solution]

{steps}

Review and critique each step in the proposed solution to determine whether each step is correct. If the solution is \
incomplete, only verify the provided steps."""
THINKPRM_OPENING = "Let's verify step by step:"
THINKPRM_QUESTION = "\nIs the solution correct?"

GENPRM_SYSTEM = "You are a math teacher. Your task is to review and critique the paragraphs in solution step by step."
GENPRM_OPENING = "<analyze>\nLet's analyze the Paragraph {number} step by step: "
GENPRM_ANALYSED = "</analyze>"
GENPRM_QUESTION = "</analyze>\n<output>\n**Judgement**: $\\boxed{"

RPRM_PROMPT = """You are an excellent math teacher. Please verify the correctness of the Now Step.

You first need to analyze the Now Step and the Previous Steps and then summarize based on your analysis.
Analysis:
You need to analyze the following aspects.
**Previous Steps Analysis**: You need to analyze the Previous Steps step by step. For each step, you need to first \
explain what the current step is doing, then you try to find any error in the current step.
**Now Step Analysis**: You first need to explain what the Now Step is doing, and then point out which part of the \
Question it is trying to solve or which part of the information it states.
**Data Source Analysis**: First you need to find out what data are used in the Now Step, and then you need to \
determine whether the source of the data is reasonable and correct. When you judge whether the source of a data is \
reasonable and correct, you need to specify the specific source of this data: such as which part of the question, or \
which content of the previous step; and then determine the source and current use is consistent, the Now Step is used \
correctly.
**Consistency Analysis**: You need to check that the Now Step is consistent with the contents of the Previous Steps, \
and then you need to check that all the information inside the Now Step is consistent.
**Calculation Analysis**: If the Now Step involves any calculations, such as addition, subtraction, multiplication, \
division, equations, modulo operations, etc., you will first need to perform a check on the calculation, such as a \
reverse operation, to see if the calculation was done correctly, and then analyze the results of your check to see if \
there was an error in the calculation.
Conclusion: 
Please verify the correctness of the Now Step based on your analysis, if there is any error in the Now Step then the \
Now Step is wrong and vice versa the Now Step is correct. At the end of the Conclusion, when you give your final \
answer, write it in the form "Verification: Is the step correct (Yes/No)? X", where X is either Yes or No.

Question: {problem}
Previous Steps: {previous}
Now Step: {step}
Please carefully analyze the correctness of the Now Step.
Reply: """
RPRM_FIRST = "Since the Now Step is the first step, there are no Previous Steps."
RPRM_PHRASE = "Is the step correct (Yes/No)?"

_BOXED_VERDICT = re.compile(r"\\boxed\{\s*(correct|incorrect)\s*\}", re.IGNORECASE)
_YES_NO = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)


@dataclass(frozen=True)
class GenerativeFamily:
    """One family of generative PRMs.

    ``names`` are the words in a checkpoint's name that it is recognised by; ``scope`` is as ``Reader.scope``;
    ``ask(problem, steps, seed, before)`` is one vote; ``sampling`` are the settings that its authors sample with.
    """

    name: str
    summary: str
    names: tuple[str, ...]
    scope: str
    ask: Callable[..., Task]
    sampling: dict[str, Any]


class FamilyReader:
    """A ``Reader`` for the checkpoints of one family.

    Args:
        family: which.
        attempts: tries per vote.
    """

    verdicts = True

    def __init__(self, family: GenerativeFamily, attempts: int) -> None:
        self.family, self.attempts, self.scope = family, attempts, family.scope
        self.settings = {"form": family.name, "attempts": attempts}

    def ask(self, problem: str, steps: Sequence[str], seed: int, before: Sequence[str]) -> Task:
        """See ``Reader``."""
        return self.family.ask(problem, steps, seed, before, self.attempts)


def thinkprm(problem: str, steps: Sequence[str], seed: int, before: Sequence[str], attempts: int) -> Task:
    """One call on all steps; the critique ends each with \\boxed{correct} or \\boxed{incorrect}, up to the first wrong.

    The last step it judges scores P(yes) of "Is the solution correct?" after its verdict, if the backend gives it.
    """
    asked = THINKPRM_PROMPT.replace("{steps}", "\n".join(numbered(list(steps)))).replace("{problem}", problem)
    prompt = _begun([{"role": "user", "content": asked}], THINKPRM_OPENING)
    parse = partial(_boxed_verdicts, num_steps=len(steps))
    answered = yield from ask_until_parsed(prompt, parse, attempts, seeds_from(seed), group=problem)
    if answered.value is None:
        return Reading(None, answered.text, len(answered.reasons))
    scores, end = answered.value
    behind = THINKPRM_OPENING + answered.text[:end] + THINKPRM_QUESTION
    told = yield Choose(_begun(prompt[:-1], behind), tuple(f" {choice}" for choice in YES_NO))
    if told is not None:
        scores = [*scores[:-1], told[0]]
    return Reading(scores + [float("nan")] * (len(steps) - len(scores)), answered.text, len(answered.reasons))


def genprm(problem: str, steps: Sequence[str], seed: int, before: Sequence[str], attempts: int) -> Task:
    """A dialogue: each step is a user's turn and its critique the answer. The score is P(Yes) after the analysis.

    This is its mode without code: the judgement is asked for where the analysis ends.
    """
    turns = [{"role": "system", "content": GENPRM_SYSTEM}]
    for index, step in enumerate(steps):
        turns.append({"role": "user", "content": f"{problem}\n{step}" if index == 0 else step})
        if index < len(before):
            turns.append({"role": "assistant", "content": before[index]})
    opening = GENPRM_OPENING.replace("{number}", str(len(steps)))
    whole = partial(_analysis, opening=opening)
    answered = yield from ask_until_parsed(
        _begun(turns, opening), whole, attempts, seeds_from(seed), group=problem, stop=(GENPRM_ANALYSED,)
    )
    if answered.value is None:
        return Reading(None, opening + answered.text, len(answered.reasons))
    asked = answered.value + GENPRM_QUESTION
    score, wrong = yield from _yes_or_no(_begun(turns, asked), YES_NO, attempts, seed)
    said = "Yes" if score is not None and score > 0.5 else "No"
    text = f"{asked}{said}}}$\n</output>\n"
    return Reading(None if score is None else [score], text, len(answered.reasons) + wrong)


def rprm(problem: str, steps: Sequence[str], seed: int, before: Sequence[str], attempts: int) -> Task:
    """One call for each step, with the earlier ones in view; P(Yes) after "Is the step correct (Yes/No)?"."""
    *previous, now = numbered(list(steps))
    parts = {"previous": "\n".join(previous) or RPRM_FIRST, "step": now, "problem": problem}
    head, _, rest = RPRM_PROMPT.partition("{problem}")
    middle, _, rest = rest.partition("{previous}")
    between, _, tail = rest.partition("{step}")
    asked = head + parts["problem"] + middle + parts["previous"] + between + parts["step"] + tail
    chat = [{"role": "user", "content": asked}]
    answered = yield from ask_until_parsed(chat, _critique, attempts, seeds_from(seed), group=problem)
    if answered.value is None:
        return Reading(None, answered.text, len(answered.reasons))
    before_verdict, said = answered.value
    told = yield Choose(_begun(chat, before_verdict), tuple(f" {choice}" for choice in YES_NO))
    if told is not None:
        return Reading([told[0]], answered.text, len(answered.reasons))
    if said is None:
        return Reading(None, answered.text, len(answered.reasons) + 1)
    return Reading([said], answered.text, len(answered.reasons))


def _begun(messages: list[dict[str, str]], opening: str) -> list[dict[str, str]]:
    return [*messages, {"role": "assistant", "content": opening}]


def _yes_or_no(prompt: Prompt, choices: tuple[str, str], attempts: int, seed: int) -> Task:
    """(P(yes), unreadable answers): a probability if the backend gives it, else 1 or 0 by the text; None = neither."""
    told = yield Choose(prompt, choices)
    if told is not None:
        return told[0], 0
    answered = yield from ask_until_parsed(prompt, _said, attempts, seeds_from(seed + 1), stop=("</output>", "\n"))
    return answered.value, len(answered.reasons)


def _said(answer: str) -> float:
    match = _YES_NO.match(answer)
    if match is None:
        raise UnparseableAnswer(f"got {answer[:40]!r}, expected Yes or No")
    return float(match[1].lower() == "yes")


def _boxed_verdicts(answer: str, num_steps: int) -> tuple[list[float], int]:
    """Verdicts on the steps up to the first wrong one, and where the last of them ends."""
    matches = list(_BOXED_VERDICT.finditer(answer))
    scores = [float(match[1].lower() == "correct") for match in matches]
    read = scores.index(0.0) + 1 if 0.0 in scores else len(scores)
    if not scores or read > num_steps or (0.0 not in scores and read < num_steps):
        raise UnparseableAnswer(f"{len(scores)} verdicts on {num_steps} steps, none of them incorrect")
    return scores[:read], matches[read - 1].end()


def _analysis(answer: str, opening: str) -> str:
    text = answer.partition(GENPRM_ANALYSED)[0].rstrip()
    if not text.strip():
        raise UnparseableAnswer("an empty analysis")
    return opening + text


def _critique(answer: str) -> tuple[str, float | None]:
    """The critique up to its final question, and its answer there; None = no answer."""
    before, phrase, after = answer.partition(RPRM_PHRASE)
    if not before.strip():
        raise UnparseableAnswer("an empty critique")
    if not phrase:
        return f"{answer}\nBased on your analysis. {RPRM_PHRASE}", None
    match = _YES_NO.match(after)
    return before + phrase, None if match is None else float(match[1].lower() == "yes")


_FAMILIES = (
    GenerativeFamily(
        name="thinkprm",
        summary="ThinkPRM: one critique of all steps, \\boxed{correct} or \\boxed{incorrect} after each",
        names=("thinkprm",),
        scope="solution",
        ask=thinkprm,
        sampling={"temperature": 0.7, "max_tokens": 4096},
    ),
    GenerativeFamily(
        name="genprm",
        summary="GenPRM: a turn for each step, P(Yes) of \\boxed{Yes} or \\boxed{No} after its analysis",
        names=("genprm",),
        scope="dialogue",
        ask=genprm,
        sampling={"temperature": 0.6, "top_p": 0.95, "max_tokens": 2048},
    ),
    GenerativeFamily(
        name="r_prm",
        summary='R-PRM: a call for each step, P(Yes) after "Is the step correct (Yes/No)?"',
        names=("r-prm", "r_prm"),
        scope="prefix",
        ask=rprm,
        sampling={"temperature": 0.95, "top_p": 0.95, "max_tokens": 3072},
    ),
)
GENERATIVE: dict[str, GenerativeFamily] = {family.name: family for family in _FAMILIES}


def family_named_in(model: str) -> GenerativeFamily | None:
    """The family that a checkpoint's name names; None for an ordinary model."""
    return next((family for family in _FAMILIES if any(word in model.lower() for word in family.names)), None)
