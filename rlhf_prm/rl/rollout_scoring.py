"""Turns sampled completions into scored rollouts; the verifier runs in its workers while the PRM scores."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reward import StepRollouts, filled_scores
from reward.verifier import STATUSES, Verdict, Verifier
from rlhf_prm.rl.environments import Reported
from rlhf_prm.rl.scorers import PolicyRollout, Scorer
from rlhf_prm.rl.token_scoring import TokenScoring, step_scores, token_table, with_tokens
from rlhf_prm.rl.turn_scores import TurnScores, of_the_policy
from rlhf_prm.rl.turns import Told, cut_rollout
from rlhf_prm.step_data import FreshRollout
from rlhf_prm.steps import StepSplitter

UNLABELLED = "unlabelled"  # there is no gold answer to verify against
UNVERIFIED = "unverified"  # there is no verifier: the outcome comes from the reward functions


@dataclass(frozen=True)
class ScoredRollout:
    """One rollout with its scores and its verdict.

    ``lengths`` are tokens per step; ``scores`` is NaN where the PRM could not score; ``reward`` is the verifier's, None
    where there is none; ``status`` is the verdict's, ``UNLABELLED`` or ``UNVERIFIED``; ``problem`` is what the PRM
    read, ``given`` what the policy was given, where the two are not ``prompt``; ``solution`` is the gold answer;
    ``token_scores`` (T_i,) are of the policy's tokens ``token_ids``. ``text`` is all that the policy wrote.

    Where tools or environments wrote too: ``turn_of_step`` is the turn of every step (empty: there is one turn),
    ``tool_results`` are (number of steps before it, text), ``turn_scores`` has one score per turn, ``state_keys`` the
    state that an environment reported before each turn.

    ``credited`` are the steps that earn process credit (None = all); ``has_text`` is False where only the numbers have
    come from another rank.
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
    token_ids: list[int] | None = None
    turn_of_step: list[int] = field(default_factory=list)
    tool_results: list[tuple[int, str]] = field(default_factory=list)
    turn_scores: list[float] | None = None
    state_keys: list[str | None] | None = None
    credited: list[bool] | None = None
    has_text: bool = True

    def without_text(self) -> "ScoredRollout":
        """Its numbers: prompt and text are empty, and so is every step."""
        unsaid: dict[str, Any] = dict.fromkeys(("problem", "given", "solution", "token_ids"))
        results = [(before, "") for before, _ in self.tool_results]
        return replace(
            self, prompt="", text="", steps=[""] * len(self.steps), tool_results=results, has_text=False, **unsaid
        )

    @property
    def fresh(self) -> FreshRollout:
        """The rollout with its verdict and without its scores, for a labeller of its steps.

        Raises:
            ValueError: tools or environments wrote in it; labellers do not read their text.
        """
        if self.tool_results:
            raise ValueError(
                "labels of steps: got a rollout with tool results, expected one that the policy wrote alone: a "
                "labeller of steps would not see the tool results"
            )
        problem = self.prompt if self.problem is None else self.problem
        given = self.prompt if self.given is None else self.given
        return FreshRollout(problem, tuple(self.steps), self.solution, self.verdict, given)

    @property
    def verdict(self) -> float:
        """1.0 = correct, 0.0 = incorrect, NaN = undecided: the gold answer is missing or unusable, or time ran out."""
        return verdict_value(self.reward, self.status)


class RolloutScoring:
    """Splits, verifies and scores the completions of one rank.

    Args:
        splitter: cuts completions into steps.
        tokenizer: the policy's, for the token counts of the steps.
        step_scorer: a scorer of any of the kinds in ``scorers``; None gives every step NaN. One that has
            ``submit(problems, steps)`` scores in the background: the ``result()`` of what it returns is waited for at
            the very end.
        verifier: gives the verdicts; None leaves every rollout unverified. Its ``submit`` is used where it has one.
        turn_scores: where turn scores come from and how they are merged into the step scores; None = there are none.

    After a call ``seconds`` holds the time spent waiting for the PRM ("prm"), then for the verifier
    ("verifier"), and cutting into steps ("steps"); ``scorer_stats`` the increase of the scorer's counts; ``learnt``
    the metrics of a scorer that is trained along with the policy.

    For token scorers, the trainer sets on ``of_tokens`` how to query the policy.
    """

    def __init__(
        self,
        splitter: StepSplitter,
        tokenizer,
        step_scorer: Scorer | None,
        verifier: Verifier | None,
        turn_scores: TurnScores | None = None,
    ) -> None:
        self.splitter, self.tokenizer = splitter, tokenizer
        self.step_scorer, self.verifier, self.turn_scores = step_scorer, verifier, turn_scores
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
        told: Sequence[Told] | None = None,
        reports: Sequence[Reported] | None = None,
    ) -> list[ScoredRollout]:
        """Scored rollouts.

        Args:
            policy_prompts: what the policy was given, if that is not ``prompts``.
            learning: whether the policy is trained on these rollouts; then a ``LearningScorer`` is, too.
            told: which tokens are the policy's, and the tool results; None = all tokens are the policy's.
            reports: the environments' rewards and states of the turns.
        """
        started = self.start(prompts, problems, solutions, completion_ids, policy_prompts, learning, told, reports)
        return started.scored(started.verified())

    def start(
        self,
        prompts: list[str],
        problems: list[str],
        solutions: list[str | None],
        completion_ids: Sequence[list[int]],
        policy_prompts: Sequence[str | list[dict[str, Any]]] | None = None,
        learning: bool = False,
        told: Sequence[Told] | None = None,
        reports: Sequence[Reported] | None = None,
    ) -> "StartedScoring":
        """Start a call: the verifier and a scorer with ``submit`` work in the background when this returns."""
        return StartedScoring(
            self, prompts, problems, solutions, completion_ids, policy_prompts, learning, told, reports
        )

    def counted(self) -> dict[str, float]:
        """The scorer's running totals, if it keeps any."""
        stats = getattr(self.step_scorer, "stats", None)
        return dict(vars(stats)) if stats is not None else {}

    @property
    def sampled_tokens(self) -> int:
        """Tokens that the scorer had the policy sample for the newest call."""
        return int(self.scorer_stats.get("tokens", 0)) if hasattr(self.step_scorer, "score_rollouts") else 0


class StartedScoring:
    """The scoring of one batch under way: ``verified`` waits for the verdicts, then ``scored`` for the step scores.

    Args:
        scoring: supplies the parts, and receives the seconds, the scorer's counts and its training metrics.
        prompts, problems, solutions, completion_ids, policy_prompts, learning, told, reports: as ``RolloutScoring``'s
            call. ``scores`` may be set before ``verified``, where another has asked the scorer.
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
        told: Sequence[Told] | None = None,
        reports: Sequence[Reported] | None = None,
    ) -> None:
        self.scoring, self.prompts, self.problems, self.solutions = scoring, prompts, problems, solutions
        self.completion_ids, self.learning = completion_ids, learning
        self.policy_prompts = prompts if policy_prompts is None else policy_prompts
        self.told = [Told()] * len(prompts) if told is None else list(told)
        self.reports = [Reported()] * len(prompts) if reports is None else list(reports)
        begun = time.perf_counter()
        self.cut = [
            cut_rollout(ids, scoring.tokenizer, scoring.splitter, one)
            for ids, one in zip(completion_ids, self.told, strict=True)
        ]
        self.seconds = {"steps": time.perf_counter() - begun, "prm": 0.0, "verifier": 0.0}
        self._collect_verdicts = self._submit_verifying()
        self.shown, self.lengths = [one.shown_steps for one in self.cut], [one.lengths for one in self.cut]
        self._before = scoring.counted()
        submit = getattr(scoring.step_scorer, "submit", None)
        self._pending = submit(problems, self.shown) if submit else None
        self.scores: list[list[float]] | None = None
        self._tokens: list[Tensor] | None = None

    def verified(self) -> list[ScoredRollout]:
        """The rollouts with their verdicts, and so far without scores (NaN).

        A scorer that has no ``submit`` scores while the verifier works; a ``RolloutScorer`` or ``TokenScorer`` after.
        """
        scorer = self.scoring.step_scorer
        by_tokens = hasattr(scorer, "score_tokens")
        waits = by_tokens or hasattr(scorer, "score_rollouts")
        if scorer is not None and self._pending is None and not waits and self.scores is None:
            self.scores = self.timed("prm", lambda: scorer.score(self.problems, self.shown))
        verdicts = self.timed("verifier", self._collect_verdicts)
        check_statuses([verdict.status for verdict in verdicts if verdict])
        if by_tokens:
            self.scores = self.timed("prm", lambda: self._scores_by_tokens(self._policy_rollouts(verdicts)))
        elif waits:
            self.scores = self.timed("prm", lambda: scorer.score_rollouts(self._policy_rollouts(verdicts)))
        unknown = UNVERIFIED if self.scoring.verifier is None else UNLABELLED
        return [
            ScoredRollout(
                prompt=prompt,
                text=cut.text,
                steps=cut.steps,
                lengths=cut.lengths,
                scores=[math.nan] * len(cut.steps),
                reward=verdict.reward if verdict else None,
                status=verdict.status if verdict else unknown,
                problem=problem if problem != prompt else None,
                given=given if given != prompt else None,
                solution=solution,
                turn_of_step=cut.turn_of_step,
                tool_results=cut.results_after_steps,
                state_keys=report.keys,
            )
            for prompt, problem, given, solution, cut, verdict, report in zip(
                self.prompts,
                self.problems,
                self.policy_prompts,
                self.solutions,
                self.cut,
                verdicts,
                self.reports,
                strict=True,
            )
        ]

    def scored(self, rows: list[ScoredRollout]) -> list[ScoredRollout]:
        """The rows with their step scores, and with turn and token scores if there are any."""
        if self._pending is not None:
            self.scores = self.timed("prm", self._pending.result)
        if self.scores is not None:
            self.scoring.scorer_stats = {
                name: value - self._before[name] for name, value in self.scoring.counted().items()
            }
            by_text = self._tokens is None and not hasattr(self.scoring.step_scorer, "score_rollouts")
            steps = self.shown if by_text else [one.steps for one in self.cut]
            scores = of_the_policy(self.scores, steps, "step_scorer")
            rows = [replace(row, scores=of_steps) for row, of_steps in zip(rows, scores, strict=True)]
        if self._tokens is not None:
            masks = [one.policy_mask for one in self.told]
            rows = with_tokens(rows, self._tokens, self.completion_ids, masks)
        if self.scoring.turn_scores is not None:
            rows = self.timed("prm", lambda: self._with_turn_scores(rows, self.scoring.turn_scores))
        self.scoring.seconds = self.seconds
        return rows

    def _with_turn_scores(self, rows: list[ScoredRollout], turn_scores: TurnScores) -> list[ScoredRollout]:
        of_turns = turn_scores.of_turns(self.problems, self.cut, self.reports)
        return [
            replace(row, turn_scores=turns, scores=turn_scores.merged(row.scores, row.turn_of_step, turns))
            for row, turns in zip(rows, of_turns, strict=True)
        ]

    def timed(self, name: str, work: Callable[[], Any]) -> Any:
        """The result; its seconds are added to those of ``name``."""
        begun = time.perf_counter()
        result = work()
        self.seconds[name] += time.perf_counter() - begun
        return result

    def _scores_by_tokens(self, rollouts: list[PolicyRollout]) -> list[list[float]]:
        """Step scores computed from token scores, which are kept."""
        scoring = self.scoring
        self._tokens, scoring.learnt = scoring.of_tokens(scoring.step_scorer, rollouts, self.learning)
        return [step_scores(row, ends) for row, ends in zip(self._tokens, self.lengths, strict=True)]

    def _policy_rollouts(self, verdicts: Sequence[Verdict | None]) -> list[PolicyRollout]:
        values = [verdict_value(verdict.reward, verdict.status) if verdict else math.nan for verdict in verdicts]
        masks = [one.policy_mask for one in self.told]
        rows = zip(self.policy_prompts, self.completion_ids, self.lengths, self.solutions, values, masks, strict=True)
        return [PolicyRollout(*row[:-1], policy_mask=row[-1]) for row in rows]

    def _submit_verifying(self) -> Callable[[], list[Verdict | None]]:
        verifier = self.scoring.verifier
        labelled = [i for i, solution in enumerate(self.solutions) if solution is not None]
        verdicts: list[Verdict | None] = [None] * len(self.cut)
        if verifier is None or not labelled:
            return lambda: verdicts
        work = [self.cut[i].answer for i in labelled], [self.solutions[i] for i in labelled]
        submit = getattr(verifier, "submit", None)
        pending = submit(*work) if submit else None

        def collect() -> list[Verdict | None]:
            results = pending.result() if pending is not None else verifier.verify(*work)
            for i, verdict in zip(labelled, results, strict=True):
                verdicts[i] = verdict
            return verdicts

        return collect


def verdict_value(reward: float | None, status: str) -> float:
    """1.0 = correct, 0.0 = incorrect, NaN = undecided."""
    judged = reward is not None and not math.isnan(reward)
    return float(status == "correct") if judged else math.nan


def check_statuses(statuses: Sequence[str]) -> None:
    """Raise a ValueError if a status is not in ``reward.verifier.STATUSES``."""
    for status in statuses:
        if status not in STATUSES:
            raise ValueError(f"verifier: status: got {status!r}, expected one of {', '.join(STATUSES)}")


def with_statuses(rows: list[ScoredRollout], statuses: Sequence[str]) -> list[ScoredRollout]:
    """The rows with the statuses that a reward function has reported.

    Raises:
        ValueError: there is not exactly one known status for each row.
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

    Steps the PRM could not score are filled by ``reward.filled_scores``. Without a verifier there are no verdicts, and
    without a token scorer no token scores.
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
        state_keys=_state_keys(rows, width, device),
    )


def _state_keys(rows: list[ScoredRollout], width: int, device: torch.device) -> Int[Tensor, "B K"] | None:
    """A number for every state reported before a turn, at the turn's first step; −1 elsewhere. None: no reports."""
    if all(row.state_keys is None for row in rows):
        return None
    numbers: dict[str, int] = {}
    keys = torch.full((len(rows), width), -1)
    for i, row in enumerate(rows):
        for turn, state in enumerate(row.state_keys or []):
            if state is not None and turn in row.turn_of_step:
                keys[i, row.turn_of_step.index(turn)] = numbers.setdefault(state, len(numbers))
    return keys.to(device)
