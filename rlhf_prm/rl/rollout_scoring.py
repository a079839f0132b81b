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
from rlhf_prm.steps import StepSplitter, step_lengths

UNLABELLED = "unlabelled"  # there is no gold answer to verify against
UNVERIFIED = "unverified"  # there is no verifier: the outcome is what the reward functions pay


@dataclass(frozen=True)
class ScoredRollout:
    """One rollout with everything that was said about it.

    ``lengths`` are tokens per step; ``scores`` is NaN where the PRM could not score; ``reward`` is the verifier's, None
    where there is none; ``status`` is the verdict's, ``UNLABELLED`` or ``UNVERIFIED``; ``problem`` is what the PRM
    read, ``given`` what the policy was given, where the two are not ``prompt``; ``solution`` is the gold answer;
    ``token_scores`` (T_i,) are those of a token scorer.
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
        step_scorer: a scorer of any of the kinds in ``scorers``; None gives every step NaN.
        verifier: gives the verdicts; None leaves every rollout unverified. Its ``submit`` is used where it has one.

    After a call ``seconds`` holds the wall time of the PRM ("prm"), the time spent waiting for the verifier besides
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
        given = prompts if policy_prompts is None else policy_prompts
        texts = [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in completion_ids]
        collect = self._submit(texts, solutions)
        start = time.perf_counter()
        cut = [step_lengths(ids, self.tokenizer, self.splitter) for ids in completion_ids]
        steps, lengths = [texts for texts, _ in cut], [row for _, row in cut]
        cut_at = scoring_from = time.perf_counter()
        tokens: list[Tensor | None] = [None] * len(texts)
        if hasattr(self.step_scorer, "score_rollouts") or hasattr(self.step_scorer, "score_tokens"):
            verdicts = collect()
            scoring_from = time.perf_counter()
            values = [verdict_value(verdict.reward, verdict.status) if verdict else math.nan for verdict in verdicts]
            rows = zip(given, completion_ids, lengths, solutions, values, strict=True)
            rollouts = [PolicyRollout(*row) for row in rows]
            if hasattr(self.step_scorer, "score_tokens"):
                before = self._counted()
                tokens, self.learnt = self.of_tokens(self.step_scorer, rollouts, learning)
                self.scorer_stats = {name: value - before[name] for name, value in self._counted().items()}
                scores = [step_scores(row, ends) for row, ends in zip(tokens, lengths, strict=True)]
            else:
                scores = self._scored(steps, lambda scorer: scorer.score_rollouts(rollouts))
            scored_at = time.perf_counter()
        else:
            scores = self._scored(steps, lambda scorer: scorer.score(problems, steps))
            scored_at = time.perf_counter()
            verdicts = collect()
        check_statuses([verdict.status for verdict in verdicts if verdict])
        unknown = UNVERIFIED if self.verifier is None else UNLABELLED
        self.seconds = {
            "steps": cut_at - start,
            "prm": scored_at - scoring_from,
            "verifier": scoring_from - cut_at + time.perf_counter() - scored_at,
        }
        return [
            ScoredRollout(
                prompt=prompt,
                text=text,
                steps=steps,
                lengths=lengths,
                scores=row,
                reward=verdict.reward if verdict else None,
                status=verdict.status if verdict else unknown,
                problem=problem if problem != prompt else None,
                given=before if before != prompt else None,
                solution=solution,
                token_scores=of_tokens,
            )
            for prompt, text, (steps, lengths), row, verdict, problem, before, solution, of_tokens in zip(
                prompts, texts, cut, scores, verdicts, problems, given, solutions, tokens, strict=True
            )
        ]

    def _submit(self, texts: list[str], solutions: list[str | None]):
        labelled = [i for i, solution in enumerate(solutions) if solution is not None]
        verdicts: list[Verdict | None] = [None] * len(texts)
        if self.verifier is None or not labelled:
            return lambda: verdicts
        work = [texts[i] for i in labelled], [solutions[i] for i in labelled]
        submit = getattr(self.verifier, "submit", None)
        pending = submit(*work) if submit else None

        def collect() -> list[Verdict | None]:
            results = pending.result() if pending is not None else self.verifier.verify(*work)
            for i, verdict in zip(labelled, results, strict=True):
                verdicts[i] = verdict
            return verdicts

        return collect

    def _scored(self, steps: list[list[str]], ask: Callable[[Any], list[list[float]]]) -> list[list[float]]:
        if self.step_scorer is None:
            return [[math.nan] * len(row) for row in steps]
        before = self._counted()
        scores = ask(self.step_scorer)
        self.scorer_stats = {name: value - before[name] for name, value in self._counted().items()}
        got, wanted = [len(row) for row in scores], [len(row) for row in steps]
        if got != wanted:
            raise ValueError(f"step_scorer: got {got} scores, expected one per step: {wanted}")
        return scores

    def _counted(self) -> dict[str, float]:
        stats = getattr(self.step_scorer, "stats", None)  # running totals, where the scorer keeps them
        return dict(vars(stats)) if stats is not None else {}


def verdict_value(reward: float | None, status: str) -> float:
    """1.0 = correct, 0.0 = incorrect, NaN = the verifier cannot tell."""
    told = reward is not None and not math.isnan(reward)
    return float(status == "correct") if told else math.nan


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
    scores, _ = filled_scores(scores, mask, num_generations)
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
        token_scores=token_table([row.token_scores for row in rows], device),
    )
