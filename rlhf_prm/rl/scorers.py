"""The protocols of scorers: what a trainer needs of a PRM, a judge, live values, an implicit PRM or a teacher.

A scorer has one of ``score`` (texts → a score per step, ``rlhf_prm.prm.StepScorer``), ``score_rollouts`` (rollouts →
a score per step) or ``score_tokens`` (rollouts → a score per token). It may also have:

- ``update``, beside ``score_tokens``: it is trained too, on every batch that the policy is trained on
  (``LearningScorer``);
- ``submit(problems, steps)``, beside ``score``: it works in the background, as a judge does; it returns an object whose
  ``result()`` gives the scores and is called at the very end of the scoring;
- ``attach(trainer)``: called once, when a trainer has been built; ``detach()``: called when its run has ended, so that
  the trainer's memory is free for the next run;
- ``stats``: an object of running totals; ``forwards``, ``completions``, ``tokens`` and ``duplicates`` are logged, and a
  judge's counts (``judges.stats``);
- ``costly``: True = a run that learns from outcomes alone does without it, as it always does without token scorers.

All ranks call each of them equally often.

Where tools or environments write into a rollout, ``score`` and ``submit`` get their texts among the steps, as
``rlhf_prm.steps.ToolResult``: context for the steps behind it. They are scored like any text, and that score is
dropped.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from rlhf_prm.prm.protocol import StepScorer


@dataclass(frozen=True)
class PolicyRollout:
    """One rollout as the policy knows it, for a scorer that asks the policy itself or reads its tokens.

    ``prompt`` is the text or the messages that the policy was given; ``lengths`` are tokens per step and sum to those
    of ``completion_ids``; ``solution`` is the gold answer; ``verdict`` is as ``ScoredRollout.verdict``. A token scorer
    also gets ``prompt_ids``, the prompt as the policy read it, and, if it has ``needs_log_probs``, the policy's own
    ``log_probs`` of the completion's tokens, under the weights that sampled them.

    ``policy_mask`` is 1 at the tokens that the policy wrote, 0 at those of tools and environments; None = all are its
    own. ``lengths`` then sum to the ones.
    """

    prompt: str | list[dict[str, Any]]
    completion_ids: list[int]
    lengths: list[int]
    solution: str | None
    verdict: float
    prompt_ids: list[int] | None = None
    log_probs: Tensor | None = None
    policy_mask: list[int] | None = None


@runtime_checkable
class RolloutScorer(Protocol):
    """A step scorer that needs more of a rollout than its text; ``score_rollouts`` is called in place of ``score``.

    It is called after the verifier has finished. If it keeps ``stats``, ``stats.tokens`` counts the tokens it sampled.
    """

    def score_rollouts(self, rollouts: list[PolicyRollout]) -> list[list[float]]:
        """For each rollout one score per step, as ``StepScorer.score``."""
        ...


@runtime_checkable
class TokenScorer(Protocol):
    """A scorer of the policy's own tokens, mostly by a log-ratio of two models, called after the verifier has finished.

    Its step scores are σ(Σ of the token scores up to the end of the step).
    """

    def score_tokens(self, rollouts: list[PolicyRollout]) -> list[Tensor]:
        """For each rollout one score per token of the completion, (T_i,) float32 on the CPU; NaN = not scored.

        Scores of tokens that the policy did not write are dropped.
        """
        ...


Scorer = StepScorer | RolloutScorer | TokenScorer


@runtime_checkable
class LearningScorer(Protocol):
    """A scorer that is trained too. ``learns``: "before" = it is updated, then it scores; "after" = the reverse."""

    learns: str

    def update(self, rollouts: list[PolicyRollout]) -> dict[str, float]:
        """Train on this rank's rollouts of a batch that the policy is trained on; returns numbers to log."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The state that a checkpoint has to hold, equal on all ranks."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore that state."""
        ...
