"""Labels rollouts held in memory, from one of four sources behind one protocol. A PRM's refresh uses it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from reward.verifier import Verifier
from rlhf_prm.annotate.consensus import consensus
from rlhf_prm.annotate.judge import JudgeSettings, judge
from rlhf_prm.annotate.monte_carlo import MonteCarloSettings, monte_carlo
from rlhf_prm.annotate.outcome import every_step
from rlhf_prm.generation import Generator
from rlhf_prm.generation.tasks import Rejection
from rlhf_prm.step_data import FreshRollout, StepLabels

Labels = list[StepLabels | Rejection]


@runtime_checkable
class Labeller(Protocol):
    """Anything that labels the steps of rollouts."""

    def labels(self, rollouts: Sequence[FreshRollout], seed: int) -> Labels:
        """For each rollout its labels, or the reason why it has none. Equal rollouts and seeds give equal labels."""
        ...


@dataclass(frozen=True)
class JudgeLabeller:
    """Asks a judge (see ``rlhf_prm.annotate.judge``)."""

    generator: Generator
    settings: JudgeSettings = field(default_factory=JudgeSettings)
    window: int = 256

    def labels(self, rollouts: Sequence[FreshRollout], seed: int) -> Labels:
        """See ``Labeller``."""
        problems, steps = [one.prompt for one in rollouts], [list(one.steps) for one in rollouts]
        settings = replace(self.settings, seed=seed)
        return judge(problems, steps, self.generator, settings=settings, window=self.window)


@dataclass(frozen=True)
class MonteCarloLabeller:
    """Continues every step prefix (see ``rlhf_prm.annotate.monte_carlo``); without a gold answer there is no label.

    Args:
        template: rollout → the text that its policy saw before the first step (default: ``given``, if it is text).
    """

    generator: Generator
    verifier: Verifier
    settings: MonteCarloSettings = field(default_factory=MonteCarloSettings)
    template: Callable[[FreshRollout], str] | None = None
    window: int = 256

    def labels(self, rollouts: Sequence[FreshRollout], seed: int) -> Labels:
        """See ``Labeller``."""
        verified = [i for i, one in enumerate(rollouts) if one.solution is not None]
        found = monte_carlo(
            [(self.template or given)(rollouts[i]) for i in verified],
            [list(rollouts[i].steps) for i in verified],
            [rollouts[i].solution for i in verified],
            self.generator,
            self.verifier,
            settings=replace(self.settings, seed=seed),
            template=str,
            window=self.window,
        )
        labels: Labels = [Rejection("no gold answer")] * len(rollouts)
        for i, one in zip(verified, found, strict=True):
            labels[i] = one
        return labels


@dataclass(frozen=True)
class ConsensusLabeller:
    """Labels on which Monte Carlo and the judge agree (see ``rlhf_prm.annotate.consensus``)."""

    monte_carlo: Labeller
    judge: Labeller

    def labels(self, rollouts: Sequence[FreshRollout], seed: int) -> Labels:
        """See ``Labeller``."""
        agreed, _ = consensus(self.monte_carlo.labels(rollouts, seed), self.judge.labels(rollouts, seed))
        return agreed


@dataclass(frozen=True)
class OutcomeLabeller:
    """Labels every step with the verdict on the whole rollout. This is free, and the PRM becomes a value function.

    From many rollouts it learns the chance that a rollout with these steps ends right (a Monte Carlo estimate
    with one completion), not whether the newest step is right.
    """

    def labels(self, rollouts: Sequence[FreshRollout], seed: int) -> Labels:
        """See ``Labeller``; the seed is not used."""
        return [
            Rejection("no verdict")
            if math.isnan(one.verdict) or not one.steps
            else every_step(one.verdict == 1.0, len(one.steps))
            for one in rollouts
        ]


def given(rollout: FreshRollout) -> str | list[dict[str, Any]]:
    """What the policy was given: the text or the messages."""
    return rollout.prompt if rollout.given is None else rollout.given
