"""Labellers of fresh rollouts of the toy world: the fallible judge, the policy, both, or the exact checker."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rlhf_prm.annotate.judge import JudgeSettings
from rlhf_prm.annotate.labellers import (
    ConsensusLabeller,
    JudgeLabeller,
    Labeller,
    Labels,
    MonteCarloLabeller,
    OutcomeLabeller,
)
from rlhf_prm.annotate.monte_carlo import MonteCarloSettings
from rlhf_prm.generation import Generator
from rlhf_prm.step_data import FreshRollout
from rlhf_prm.toyworld.judge import FallibleJudge
from rlhf_prm.toyworld.labels import confirmed_labels, gold_labels
from rlhf_prm.toyworld.problems import SEPARATOR
from rlhf_prm.toyworld.settings import ToyWorldSettings
from rlhf_prm.toyworld.verifier import ExactMatchVerifier

OPTIONS = ("votes", "flips", "num_completions")


def toy_labeller(name: str, settings: ToyWorldSettings, policy: Generator | None = None, **options: Any) -> Labeller:
    """The labeller called ``name`` in a refresh.

    Args:
        settings: of the world; the judge is mistaken about the same lines as when the world was built.
        policy: samples completions, for ``mc``, ``consensus`` and ``confirmed``; the policy in training.
        options: ``votes`` and ``flips`` of the judge, ``num_completions`` per prefix, in place of the world's.

    Raises:
        ValueError: an unknown option, or no policy for a source that needs one.
    """
    if unknown := sorted(set(options) - set(OPTIONS)):
        raise ValueError(
            f"prm_refresh: the toy world's labels have no key {unknown[0]!r}; they have {', '.join(OPTIONS)}"
        )
    if name in ("mc", "consensus", "confirmed") and policy is None:
        raise ValueError(f"prm_refresh labels {name!r}: got no policy, expected a sampler of the one in training")
    flips, votes = options.get("flips", settings.judge_flips), options.get("votes", settings.judge_votes)
    completions = options.get("num_completions", settings.mc_completions)
    judge = JudgeLabeller(FallibleJudge(flips, settings.seed), JudgeSettings(votes=votes), window=2000)
    estimate = MonteCarloLabeller(
        policy, ExactMatchVerifier(), MonteCarloSettings(completions, separator=SEPARATOR), window=2000
    )
    return {
        "judge": judge,
        "mc": estimate,
        "consensus": ConsensusLabeller(estimate, judge),
        "confirmed": _Confirmed(judge, policy, completions),
        "outcome": OutcomeLabeller(),
        "gold": ExactLabeller(),
    }[name]


@dataclass(frozen=True)
class ExactLabeller:
    """The exact checker."""

    def labels(self, rollouts: Sequence[FreshRollout], seed: int = 0) -> Labels:
        """See ``Labeller``; the seed is not used."""
        return list(gold_labels(_rows(rollouts)))


@dataclass(frozen=True)
class _Confirmed:
    """The judge's labels that the policy's completions do not contradict."""

    judge: Labeller
    policy: Generator | None
    num_completions: int = field(default=4)

    def labels(self, rollouts: Sequence[FreshRollout], seed: int) -> Labels:
        judged = self.judge.labels(rollouts, seed)
        return confirmed_labels(_rows(rollouts), judged, self.policy, num_completions=self.num_completions, seed=seed)


def _rows(rollouts: Sequence[FreshRollout]) -> list[dict[str, Any]]:
    return [{"prompt": one.prompt, "steps": list(one.steps), "solution": one.solution} for one in rollouts]
