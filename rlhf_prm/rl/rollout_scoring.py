"""From sampled completions to scored rollouts: the verifier runs in its workers while the PRM scores."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from reward import StepRollouts, filled_scores
from reward.verifier import STATUSES, Verdict, Verifier
from rlhf_prm.rl.scorers import PolicyRollout, Scorer
from rlhf_prm.rl.token_scoring import TokenScoring, step_scores, token_table
from rlhf_prm.step_data import FreshRollout
from rlhf_prm.steps import StepSplitter, steps_of
from rlhf_prm.token_text import token_text

UNLABELLED = "unlabelled"  # there is no gold answer to verify against
UNVERIFIED = "unverified"  # there is no verifier: the outcome is what the reward functions pay


@dataclass(frozen=True)
class ScoredRollout:
    """One rollout with everything that was said about it.

    ``lengths`` are tokens per step; ``scores`` is NaN where the PRM could not score; ``reward`` is the verifier's, None
    where there is none; ``status`` is the verdict's, ``UNLABELLED`` or ``UNVERIFIED``; ``problem`` is what the PRM
    read, ``given`` what the policy was given, where the two are not ``prompt``; ``solution`` is the gold answer;
    ``token_scores`` (T_i,) are those of a token scorer; ``credited`` are the steps that earn process credit (None =
    all); ``has_text`` is False where only the numbers have come from another rank.
    """

    prompt: str
    text: str
    steps: list[str]
    lengths: list[int]
    scores: list[float]
    reward: float | None
    status: str
    problem: str | None = None
    given: str | list[dict[str, Any]] | None = None
    solution: str | None = None
    token_scores: Tensor | None = field(default=None, compare=False)
    credited: list[bool] | None = None
    has_text: bool = True

    def without_text(self) -> "ScoredRollout":
        """Its numbers: prompt and text are empty, and so is every step."""
        unsaid: dict[str, Any] = dict.fromkeys(("problem", "given", "solution"))
        return replace(self, prompt="", text="", steps=[""] * len(self.steps), has_text=False, **unsaid)

    @property
    def fresh(self) -> FreshRollout:
        """The rollout without what was said about it but the verdict, for whoever labels its steps."""
        problem = self.prompt if self.problem is None else self.problem
        given = self.prompt if self.given is None else self.given
        return FreshRollout(problem, tuple(self.steps), self.solution, self.verdict, given)

    @property
    def verdict(self) -> float:
        """1.0 = correct, 0.0 = incorrect, NaN = the verifier cannot tell: no gold, a bad gold, a deadline it passed."""
        return verdict_value(self.reward, self.status)


class RolloutScoring:
    """Splits, verifies and scores the completions of one rank.

    Args:
        splitter: cuts completions into steps.
        tokenizer: the policy's, for the token counts of the steps.
        step_scorer: a scorer of any of the kinds in ``scorers``; None gives every step NaN. One that has
            ``submit(problems, steps)`` scores beside other work: the ``result()`` of what it returns is waited for at
            the very end.
        verifier: gives the verdicts; None leaves every rollout unverified. Its ``submit`` is used where it has one.

    After a call ``seconds`` holds the time spent waiting for the PRM ("prm") and, besides, for the verifier
    ("verifier"), and cutting into steps ("steps"); ``scorer_stats`` what a PRM of ours counted meanwhile; ``learnt``
    what a scorer that learns along told.

    Whoever has a policy tells ``of_tokens`` how to ask it, which token scorers need.
    """

    def __init__(
        self,
        splitter: StepSplitter,
        tokenizer,
        step_scorer: Scorer | None,
        verifier: Verifier | None,
    ) -> None:
        self.splitter, self.tokenizer = splitter, tokenizer
        self.step_scorer, self.verifier = step_scorer, verifier
        self.seconds: dict[str, float] = {}
        self.scorer_stats: dict[str, float] = {}
        self.learnt: dict[str, float] = {}
        self.of_tokens = TokenScoring()

    def __call__(
        self,
        prompts: list[str],
        problems: list[str],
        solutions: list[str | None],
        completion_ids: Sequence[list[int]],
        policy_prompts: Sequence[str | list[dict[str, Any]]] | None = None,
        learning: bool = False,
    ) -> list[ScoredRollout]:
        """Scored rollouts.

        Args:
            policy_prompts: what the policy was given where ``prompts`` are not.
            learning: the policy is trained on these, and a scorer that learns along learns from them.
        """
        started = self.start(prompts, problems, solutions, completion_ids, policy_prompts, learning)
        return started.scored(started.verified())

    def start(
        self,
        prompts: list[str],
        problems: list[str],
        solutions: list[str | None],
        completion_ids: Sequence[list[int]],
        policy_prompts: Sequence[str | list[dict[str, Any]]] | None = None,
        learning: bool = False,
    ) -> "StartedScoring":
        """The same, begun: the verifier and a scorer with ``submit`` are at work when this returns."""
        return StartedScoring(self, prompts, problems, solutions, completion_ids, policy_prompts, learning)

    def counted(self) -> dict[str, float]:
        """The scorer's running totals, where it keeps them."""
        stats = getattr(self.step_scorer, "stats", None)
        return dict(vars(stats)) if stats is not None else {}

    @property
    def sampled_tokens(self) -> int:
        """Tokens that the scorer had the policy sample for the newest call."""
        return int(self.scorer_stats.get("tokens", 0)) if hasattr(self.step_scorer, "score_rollouts") else 0


class StartedScoring:
    """The scoring of one batch under way: ``verified`` waits for the verdicts, then ``scored`` for the step scores.

    Args:
        scoring: whose parts are used, and where the seconds, the scorer's stats and what it learnt are left.
        prompts, problems, solutions, completion_ids, policy_prompts, learning: as ``RolloutScoring``'s call.
    """

    def __init__(
        self,
        scoring: RolloutScoring,
        prompts: list[str],
        problems: list[str],
        solutions: list[str | None],
        completion_ids: Sequence[list[int]],
        policy_prompts: Sequence[str | list[dict[str, Any]]] | None = None,
        learning: bool = False,
    ) -> None:
        self.scoring, self.prompts, self.problems, self.solutions = scoring, prompts, problems, solutions
        self.completion_ids, self.learning = completion_ids, learning
        self.policy_prompts = prompts if policy_prompts is None else policy_prompts
        tokenizer = scoring.tokenizer
        written = [token_text(ids, tokenizer) for ids in completion_ids]
        self.texts = [one.text for one in written]
        self._collect_verdicts = self._submit_verifying()
        begun = time.perf_counter()
        cut = [steps_of(one, scoring.splitter) for one in written]
        self.steps, self.lengths = [texts for texts, _ in cut], [row for _, row in cut]
        self.seconds = {"steps": time.perf_counter() - begun, "prm": 0.0, "verifier": 0.0}
        self._before = scoring.counted()
        submit = getattr(scoring.step_scorer, "submit", None)
        self._pending = submit(problems, self.steps) if submit else None
        self._scores: list[list[float]] | None = None
        self._tokens: list[Tensor] | None = None

    def verified(self) -> list[ScoredRollout]:
        """The rollouts with their verdicts, and so far without scores (NaN).

        A scorer that has no ``submit`` scores while the verifier works; a ``RolloutScorer`` or ``TokenScorer`` after.
        """
        scorer = self.scoring.step_scorer
        by_tokens = hasattr(scorer, "score_tokens")
        waits = by_tokens or hasattr(scorer, "score_rollouts")
        if scorer is not None and self._pending is None and not waits:
            self._scores = self._timed("prm", lambda: scorer.score(self.problems, self.steps))
        verdicts = self._timed("verifier", self._collect_verdicts)
        check_statuses([verdict.status for verdict in verdicts if verdict])
        if by_tokens:
            self._scores = self._timed("prm", lambda: self._scores_by_tokens(self._policy_rollouts(verdicts)))
        elif waits:
            self._scores = self._timed("prm", lambda: scorer.score_rollouts(self._policy_rollouts(verdicts)))
        unknown = UNVERIFIED if self.scoring.verifier is None else UNLABELLED
        return [
            ScoredRollout(
                prompt=prompt,
                text=text,
                steps=steps,
                lengths=lengths,
                scores=[math.nan] * len(steps),
                reward=verdict.reward if verdict else None,
                status=verdict.status if verdict else unknown,
                problem=problem if problem != prompt else None,
                given=given if given != prompt else None,
                solution=solution,
            )
            for prompt, problem, given, solution, text, steps, lengths, verdict in zip(
                self.prompts,
                self.problems,
                self.policy_prompts,
                self.solutions,
                self.texts,
                self.steps,
                self.lengths,
                verdicts,
                strict=True,
            )
        ]

    def scored(self, rows: list[ScoredRollout]) -> list[ScoredRollout]:
        """The rows with their step scores, and those of their tokens where there are any."""
        if self._pending is not None:
            self._scores = self._timed("prm", self._pending.result)
        self.scoring.seconds = self.seconds
        if self._scores is None:
            return rows
        growth = {name: value - self._before[name] for name, value in self.scoring.counted().items()}
        self.scoring.scorer_stats = growth
        got, wanted = [len(row) for row in self._scores], [len(row) for row in self.steps]
        if got != wanted:
            raise ValueError(f"step_scorer: got {got} scores, expected one per step: {wanted}")
        tokens = self._tokens if self._tokens is not None else [None] * len(rows)
        return [
            replace(row, scores=scores, token_scores=of_tokens)
            for row, scores, of_tokens in zip(rows, self._scores, tokens, strict=True)
        ]

    def _timed(self, name: str, work: Callable[[], Any]) -> Any:
        begun = time.perf_counter()
        result = work()
        self.seconds[name] += time.perf_counter() - begun
        return result

    def _scores_by_tokens(self, rollouts: list[PolicyRollout]) -> list[list[float]]:
        """The token scores are kept; the step scores are made of them."""
        scoring = self.scoring
        self._tokens, scoring.learnt = scoring.of_tokens(scoring.step_scorer, rollouts, self.learning)
        return [step_scores(row, ends) for row, ends in zip(self._tokens, self.lengths, strict=True)]

    def _policy_rollouts(self, verdicts: Sequence[Verdict | None]) -> list[PolicyRollout]:
        values = [verdict_value(verdict.reward, verdict.status) if verdict else math.nan for verdict in verdicts]
        rows = zip(self.policy_prompts, self.completion_ids, self.lengths, self.solutions, values, strict=True)
        return [PolicyRollout(*row) for row in rows]

    def _submit_verifying(self) -> Callable[[], list[Verdict | None]]:
        verifier = self.scoring.verifier
        labelled = [i for i, solution in enumerate(self.solutions) if solution is not None]
        verdicts: list[Verdict | None] = [None] * len(self.texts)
        if verifier is None or not labelled:
            return lambda: verdicts
        work = [self.texts[i] for i in labelled], [self.solutions[i] for i in labelled]
        submit = getattr(verifier, "submit", None)
        pending = submit(*work) if submit else None

        def collect() -> list[Verdict | None]:
            results = pending.result() if pending is not None else verifier.verify(*work)
            for i, verdict in zip(labelled, results, strict=True):
                verdicts[i] = verdict
            return verdicts

        return collect


def verdict_value(reward: float | None, status: str) -> float:
    """1.0 = correct, 0.0 = incorrect, NaN = the verifier cannot tell."""
    judged = reward is not None and not math.isnan(reward)
    return float(status == "correct") if judged else math.nan


def check_statuses(statuses: Sequence[str]) -> None:
    """Raises a ValueError where one is not of ``reward.verifier.STATUSES``: a verdict nobody could read."""
    for status in statuses:
        if status not in STATUSES:
            raise ValueError(f"verifier: status: got {status!r}, expected one of {', '.join(STATUSES)}")


def with_statuses(rows: list[ScoredRollout], statuses: Sequence[str]) -> list[ScoredRollout]:
    """The rows with the statuses that a reward function has found.

    Raises:
        ValueError: not one status of the known ones for each row.
    """
    if len(statuses) != len(rows):
        raise ValueError(
            f"verifier_status: got {len(statuses)} values for {len(rows)} completions, expected one for each; let one "
            "reward function report it"
        )
    check_statuses(statuses)
    rewards = [None if status == "bad_gold" else float(status == "correct") for status in statuses]
    return [
        replace(row, reward=reward, status=status) for row, reward, status in zip(rows, rewards, statuses, strict=True)
    ]


def step_rollouts(
    rows: list[ScoredRollout], outcome_rewards: Float[Tensor, " B"], num_generations: int
) -> StepRollouts:
    """The rows of whole groups as padded tensors on the device of ``outcome_rewards``.

    Steps the PRM could not score are filled by ``reward.filled_scores``. Rows without a verifier have no verdicts, and
    those of a step scorer no token scores.
    """
    width = max(len(row.steps) for row in rows)

    def padded(values: list[list], fill: float) -> Tensor:
        return torch.tensor([value + [fill] * (width - len(value)) for value in values])

    mask = padded([[True] * len(row.steps) for row in rows], False)
    scores = padded([row.scores for row in rows], 0.0)
    scores, filled = filled_scores(scores, mask, num_generations)
    device = outcome_rewards.device
    verdicts = None
    if not any(row.status == UNVERIFIED for row in rows):
        verdicts = torch.tensor([row.verdict for row in rows], device=device)
    return StepRollouts(
        step_scores=scores.to(device),
        step_mask=mask.to(device),
        step_lengths=padded([row.lengths for row in rows], 0).to(device),
        outcome_rewards=outcome_rewards,
        num_generations=num_generations,
        verdicts=verdicts,
        scored=(~filled).to(device),
        token_scores=token_table([row.token_scores for row in rows], device),
    )
