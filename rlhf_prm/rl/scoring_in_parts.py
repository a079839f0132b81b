"""Scores groups as they finish: a batch is sampled some groups at a time, and finished ones are scored meanwhile.

The verifier's workers, a judge and a PRM behind a server work while the policy samples. A PRM in this process
would compete with it for the same device, so it scores everything at the end, in its own micro-batches.
"""

from collections.abc import Callable, Iterator
from typing import Any

from rlhf_prm.rl.rollout_scoring import RolloutScoring, ScoredRollout, StartedScoring
from rlhf_prm.rl.trl_seam import reads_images

Begun = Callable[[slice, list[list[int]]], None]  # rows of the batch and their completions


class ScoringInParts:
    """The scorings of the parts of one batch, in the order of its rows, as one ``StartedScoring``."""

    def __init__(self, scoring: RolloutScoring) -> None:
        self.scoring, self.parts, self._before = scoring, list[StartedScoring](), scoring.counted()

    @property
    def cut(self) -> list[Any]:
        """The completions of all parts, cut into steps."""
        return [one for part in self.parts for one in part.cut]

    def verified(self) -> list[ScoredRollout]:
        """See ``StartedScoring.verified``; a scorer without ``submit`` is called once, for all parts."""
        scorer = self.scoring.step_scorer
        if scorer is not None and not hasattr(scorer, "submit"):
            problems = [problem for part in self.parts for problem in part.problems]
            shown = [steps for part in self.parts for steps in part.shown]
            scores = iter(self.parts[0].timed("prm", lambda: scorer.score(problems, shown)))
            for part in self.parts:
                part.scores = [next(scores) for _ in part.cut]
        return [row for part in self.parts for row in part.verified()]

    def scored(self, rows: list[ScoredRollout]) -> list[ScoredRollout]:
        """See ``StartedScoring.scored``."""
        waiting, found = iter(rows), list[ScoredRollout]()
        for part in self.parts:
            found += part.scored([next(waiting) for _ in part.cut])
        scoring, names = self.scoring, self.parts[0].seconds
        scoring.seconds = {name: sum(part.seconds[name] for part in self.parts) for name in names}
        scoring.scorer_stats = {name: value - self._before[name] for name, value in scoring.counted().items()}
        return found


def sampled_in_parts(sample: Callable[[slice], tuple], rows: int, size: int, begun: Begun) -> tuple[list, list | None]:
    """Completions and log-probabilities of all rows, sampled ``size`` at a time; ``begun`` is called with each part.

    Args:
        sample: rows → (their completions, their log-probabilities or None).
    """
    completions: list[list[int]] = []
    log_probs: list[list[float]] = []
    told = False
    for part in parts_of(rows, size):
        ids, of_tokens = sample(part)
        begun(part, ids)
        completions += ids
        told = of_tokens is not None
        log_probs += of_tokens or []
    return completions, log_probs if told else None


def parts_of(rows: int, size: int) -> Iterator[slice]:
    """Slices of at most ``size`` rows."""
    for first in range(0, rows, size):
        yield slice(first, min(first + size, rows))


def check_parts(trainer: Any, scorer: Any) -> None:
    """Check that the trainer's batches can be sampled ``args.groups_at_once`` groups at a time.

    Raises:
        ValueError: they cannot.
    """
    args, named = trainer.args, f"groups_at_once: got {trainer.args.groups_at_once}"
    if args.groups_at_once == 0:
        return
    if trainer.acts or reads_images(trainer):
        raise ValueError(f"{named}, expected 0 for a policy with tools, environments, images or a rollout_func")
    if hasattr(scorer, "score_tokens") or hasattr(scorer, "score_rollouts"):
        raise ValueError(
            f"{named} with step_scorer {type(scorer).__name__}, expected 0: it needs the policy, which is sampling"
        )
    of_rank = args.per_device_train_batch_size * args.steps_per_generation
    if of_rank % args.num_generations:
        raise ValueError(
            f"{named}, expected 0 where a group spans processes: {of_rank} rollouts of each process in groups of "
            f"{args.num_generations}"
        )
