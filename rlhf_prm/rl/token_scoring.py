"""Calls a token scorer: what it is given, when it is updated, and how its scores become step scores."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import compress, repeat
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rlhf_prm.rl.scorers import PolicyRollout


class TokenScoring:
    """Calls a token scorer, and updates it before or after if it is trained too.

    Attributes:
        prompt_ids: prompts → the ids that the policy reads.
        log_probs: prompt ids, completion ids → the policy's log-probabilities of the latter, (T_i,) each. The trainer
            sets both.
    """

    def __init__(self) -> None:
        self.prompt_ids: Callable[[list[Any]], list[list[int]]] | None = None
        self.log_probs: Callable[[list[list[int]], list[list[int]]], list[Tensor]] | None = None

    def __call__(
        self, scorer: Any, rollouts: list[PolicyRollout], learning: bool
    ) -> tuple[list[Tensor], dict[str, float]]:
        """The scores of the policy's own tokens of every rollout, and the metrics of a scorer that is trained too.

        Args:
            learning: whether the policy is trained on these rollouts.

        Raises:
            ValueError: ``prompt_ids`` and ``log_probs`` are not set, or there is not one score per token.
        """
        rollouts = self._with_ids(scorer, rollouts)
        learnt: dict[str, float] = {}
        learns = scorer.learns if learning and hasattr(scorer, "update") else None
        if learns == "before":
            learnt = scorer.update(rollouts)
        scores = [row.detach().float().cpu() for row in scorer.score_tokens(rollouts)]
        if learns == "after":
            learnt = scorer.update(rollouts)
        got, wanted = [tuple(row.shape) for row in scores], [(len(one.completion_ids),) for one in rollouts]
        if got != wanted:
            raise ValueError(f"step_scorer: got token scores of shapes {got}, expected one per token: {wanted}")
        return [_of_the_policy(row, one.policy_mask) for row, one in zip(scores, rollouts, strict=True)], learnt

    def _with_ids(self, scorer: Any, rollouts: list[PolicyRollout]) -> list[PolicyRollout]:
        """The rollouts with the prompt ids and, if needed, the log-probabilities of the policy."""
        if self.prompt_ids is None:
            raise ValueError("token scorer: got no policy, expected a trainer that sets prompt_ids and log_probs")
        prompts = self.prompt_ids([rollout.prompt for rollout in rollouts])
        found: list[Tensor | None] = [None] * len(rollouts)
        if getattr(scorer, "needs_log_probs", False):
            found = self.log_probs(prompts, [rollout.completion_ids for rollout in rollouts])
        return [
            replace(rollout, prompt_ids=list(ids), log_probs=own)
            for rollout, ids, own in zip(rollouts, prompts, found, strict=True)
        ]


def _of_the_policy(scores: Tensor, policy_mask: list[int] | None) -> Tensor:
    """The scores of the tokens that the policy wrote."""
    return scores if policy_mask is None else scores[torch.tensor(policy_mask, dtype=torch.bool)]


def with_tokens(
    rows: Sequence[Any],
    scores: Sequence[Tensor],
    completion_ids: Sequence[list[int]],
    policy_masks: Sequence[list[int] | None],
) -> list[Any]:
    """``ScoredRollout``s with the scores and the ids of the policy's own tokens."""
    return [
        replace(row, token_scores=of_tokens, token_ids=list(compress(ids, repeat(1) if mask is None else mask)))
        for row, of_tokens, ids, mask in zip(rows, scores, completion_ids, policy_masks, strict=True)
    ]


def step_scores(token_scores: Tensor, lengths: list[int]) -> list[float]:
    """σ(Σ of the token scores up to the end of each step); NaN once a token is unscored."""
    sums = torch.cat([torch.zeros(1, dtype=torch.float64), token_scores.double().cumsum(0)])
    return sums[torch.tensor(lengths).cumsum(0)].sigmoid().tolist()


def token_table(rows: Sequence[Tensor | None], device: torch.device) -> Float[Tensor, "B T"] | None:
    """Token scores, padded with 0. An unscored token has 0 too, so it has no effect. None if there are none."""
    if rows[0] is None:
        return None
    scores = [row.nan_to_num(nan=0.0) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(scores, batch_first=True).to(device)
