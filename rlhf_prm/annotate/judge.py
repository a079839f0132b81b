"""LLM-as-a-judge step labels: a strong model reads the solution and names the first wrong step (2501.07301 §3.2)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reward import resolve
from rlhf_prm.annotate.drivers import run_batched
from rlhf_prm.annotate.judge_forms import FORMS, JudgeForm, UnparseableAnswer
from rlhf_prm.annotate.tasks import Emit, RejectedRow, Rejection, Task
from rlhf_prm.generation import Generator
from rlhf_prm.generation.requests import Generate, unit_seed
from rlhf_prm.step_data import StepLabels


@dataclass(frozen=True)
class JudgeSettings:
    """How a solution is judged.

    Args:
        form: "paper", "processbench", or a dotted path to a ``JudgeForm``.
        votes: answers asked for; the first error with most votes wins, a tie gives no label.
        attempts: tries per vote; a new one, with a new seed, after every answer that cannot be parsed.
        seed: of all sampling.
    """

    form: str = "paper"
    votes: int = 1
    attempts: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("votes", "attempts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected ≥ 1")
        self.resolved_form()

    def resolved_form(self) -> JudgeForm:
        """The form itself."""
        return resolve(self.form, FORMS, "judge form")


@dataclass
class Vote:
    """One vote: ``first_error`` (0-based, −1 = none, None = no attempt could be parsed), and why attempts failed."""

    vote: int
    first_error: int | None
    attempts: int
    unparseable: list[str]


def judge_task(
    key: str | int, problem: str, steps: Sequence[str], settings: JudgeSettings, known: Sequence[Vote] = ()
) -> Task:
    """The judging of one solution; goes on after the ``known`` votes.

    Emits each ``Vote`` as a dict; returns ``StepLabels``.

    Raises:
        RejectedRow: no steps, no vote that can be parsed, or a tie.
    """
    if not steps:
        raise RejectedRow("the solution has no steps")
    form = settings.resolved_form()
    messages = form.messages(problem, steps)
    votes = list(known)
    for index in range(len(votes), settings.votes):
        vote = Vote(index, None, 0, [])
        while vote.first_error is None and vote.attempts < settings.attempts:
            seed = unit_seed(settings.seed, "judge", key, index, vote.attempts)
            (answer,) = yield Generate(messages, 1, seed, group=problem)
            vote.attempts += 1
            try:
                vote.first_error = form.parse(answer, len(steps))
            except UnparseableAnswer as error:
                vote.unparseable.append(str(error))
        votes.append(vote)
        yield Emit(vars(vote).copy())
    return labels_from_votes(votes, len(steps))


def labels_from_votes(votes: Sequence[Vote], num_steps: int) -> StepLabels:
    """Hard labels of the first error with most votes; soft labels: the share of votes that hold the step correct.

    Raises:
        RejectedRow: nothing to count, or a tie.
    """
    cast = [vote.first_error for vote in votes if vote.first_error is not None]
    if not cast:
        reasons = [reason for vote in votes for reason in vote.unparseable]
        raise RejectedRow(f"judge: no answer could be parsed in {len(reasons)} attempts; the last: {reasons[-1]}")
    ranking = Counter(cast).most_common()
    if len(ranking) > 1 and ranking[0][1] == ranking[1][1]:
        raise RejectedRow(f"judge: tied votes {dict(sorted(ranking))}")
    first_error = ranking[0][0]
    looked_at = num_steps if first_error < 0 else first_error + 1
    soft = [sum(e < 0 or k < e for e in cast) / len(cast) for k in range(looked_at)]
    return StepLabels([first_error < 0 or k < first_error for k in range(looked_at)], soft, "judge")


def judge(
    problems: list[str],
    steps: list[list[str]],
    generator: Generator,
    *,
    settings: JudgeSettings | None = None,
    window: int = 256,
) -> list[StepLabels | Rejection]:
    """Judged step labels of solutions held in memory, in their order; a row without a verdict gives a ``Rejection``.

    Args:
        window: solutions worked on at once; each generator call holds at most that many prompts.
    """
    settings = settings or JudgeSettings()
    tasks: Any = (
        (i, judge_task(i, problem, chain, settings))
        for i, (problem, chain) in enumerate(zip(problems, steps, strict=True))
    )
    results = dict(run_batched(tasks, generator, window=window))
    return [results[i] for i in range(len(problems))]
