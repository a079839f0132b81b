"""LLM-as-a-judge step labels: a strong model reads the solution and names the first wrong step (2501.07301 §3.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reward import resolve
from rlhf_prm.generation import Generator
from rlhf_prm.generation.drivers import run_batched
from rlhf_prm.generation.requests import unit_seed
from rlhf_prm.generation.tasks import Emit, RejectedRow, Rejection, Task
from rlhf_prm.judges.forms import FORMS, JudgeForm
from rlhf_prm.judges.votes import Vote, ask_until_parsed, labels_from_votes
from rlhf_prm.step_data import StepLabels


@dataclass(frozen=True)
class JudgeSettings:
    """How a solution is judged.

    Args:
        form: "paper", "processbench", "verdicts", or a dotted path to a ``JudgeForm``.
        votes: number of votes; the first error with the most votes wins, a tie gives no label.
        attempts: attempts per vote; after an answer that cannot be parsed, the next one has a new seed.
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


def judge_task(
    key: str | int, problem: str, steps: Sequence[str], settings: JudgeSettings, known: Sequence[Vote] = ()
) -> Task:
    """The task that judges one solution; it continues after the ``known`` votes.

    Emits each ``Vote`` as a dict; returns ``StepLabels``.

    Raises:
        RejectedRow: there are no steps, no vote can be parsed, or votes are tied.
    """
    if not steps:
        raise RejectedRow("the solution has no steps")
    form = settings.resolved_form()
    messages = form.messages(problem, steps)
    votes = list(known)
    for index in range(len(votes), settings.votes):
        answered = yield from ask_until_parsed(
            messages,
            lambda answer: form.parse(answer, len(steps)),
            settings.attempts,
            lambda attempt, index=index: unit_seed(settings.seed, "judge", key, index, attempt),
            group=problem,
        )
        vote = Vote(index, answered.value, answered.attempts, list(answered.reasons))
        votes.append(vote)
        yield Emit(vars(vote).copy())
    return labels_from_votes(votes, len(steps))


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
