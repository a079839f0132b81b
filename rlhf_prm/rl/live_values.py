"""LiveMonteCarloScorer values every step prefix by fresh completions of the policy in training (VinePPO)."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

from reward.verifier import Verifier
from rlhf_prm.generation import Generator
from rlhf_prm.generation.requests import unit_seed
from rlhf_prm.judges.budget import Budget
from rlhf_prm.judges.cache import VerdictCache
from rlhf_prm.rl.dataset_checks import refuse_without_gold
from rlhf_prm.rl.policy_sampling import Continuation, GeneratorSampler, Prefix, PrefixSampler, TrainerSampler
from rlhf_prm.rl.rollout_scoring import check_statuses, verdict_value
from rlhf_prm.rl.scorers import PolicyRollout
from rlhf_prm.rl.trl_seam import prompt_ids, reads_images, tokenizer_of

logger = logging.getLogger(__name__)
PrefixKey = tuple[tuple[int, ...], tuple[int, ...], str]  # tokens of the prompt, of the completion so far; gold answer
KNOWN_PREFIXES = 1_000_000
ALONE = "expected a policy that writes alone: completions of a prefix are sampled without tools and environments"


@dataclass
class LiveValueStats:
    """Running totals of a live scorer since it was made, on this rank."""

    calls: int = 0
    prefixes: int = 0  # that were completed
    duplicates: int = 0  # prefixes equal to another one of the same call
    completions: int = 0
    tokens: int = 0  # sampled
    unscored_steps: int = 0  # past max_steps, over budget, or of rollouts that the verifier cannot judge: NaN
    cache_hits: int = 0  # prefixes that an earlier call of the same update has completed
    over_budget: int = 0  # prefixes left out because of the budget


@dataclass(frozen=True)
class PolicyAccess:
    """The policy in training, its verifier and its settings, as a live scorer needs them.

    ``prompt_ids`` gives the tokens of prompts as the policy reads them; ``seed`` a new seed for every call;
    ``training`` says whether the present rollouts are trained on, ``update`` which update it is (None: each call is
    one). Values and the budget hold for one update, because the policy then changes.
    """

    sampler: PrefixSampler
    verifier: Verifier
    prompt_ids: Callable[[list[Any]], list[list[int]]]
    max_completion_length: int
    seed: Callable[[], int]
    training: Callable[[], bool] = lambda: True
    update: Callable[[], Any] = lambda: None


class LiveMonteCarloScorer:
    """Step scores that are Monte Carlo values V_k of the policy in training, as in VinePPO (arXiv 2410.01679).

    V_k is the share of ``num_completions`` fresh completions from the end of step k that the verifier finds correct.
    The last step has the verdict on the rollout itself. A rollout without a usable gold answer
    has NaN everywhere, and nothing is sampled for it. Equal prefixes are completed once. A completion that the verifier
    cannot judge is left out of the mean.

    The trainer attaches it to its policy. It then samples as the trainer does, with transformers'
    ``generate``, up to ``max_completion_length`` tokens of prefix and continuation together.

    Args:
        num_completions: K, completions per prefix.
        max_steps: how many first steps are valued; later ones have NaN, except the last;
            None = all.
        batch_size: the most completions that ``generate`` samples together.
        budget_completions, budget_tokens: the most that may be sampled for one update, over all ranks; None = no limit.
            A prefix is completed if all its completions fit, each counted with the most tokens it may have; those of
            early steps come first. The others have NaN and are counted in ``stats.over_budget``.
        sampler: used in place of ``generate``: a ``Generator`` that is the policy in training and follows its
            weights. It has its own temperature and length.
        in_evaluation: whether to sample in held-out evaluations too, where values are only logged; if not, all steps
            but the last have NaN there.

    Raises:
        ValueError: a number is below 1, or the sampler cannot generate.
    """

    costly = True  # a run that learns from outcomes alone does without it

    def __init__(
        self,
        num_completions: int = 9,
        *,
        max_steps: int | None = 25,
        batch_size: int = 64,
        budget_completions: int | None = None,
        budget_tokens: int | None = None,
        sampler: Generator | None = None,
        in_evaluation: bool = False,
    ) -> None:
        for name, value in (
            ("num_completions", num_completions),
            ("max_steps", max_steps),
            ("batch_size", batch_size),
        ):
            nothing = name == "max_steps" and value is None
            if not nothing and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{name}: got {value!r}, expected a whole number of at least 1")
        if sampler is not None and not hasattr(sampler, "generate"):
            raise ValueError(f"sampler: got {sampler!r}, expected a Generator of the policy in training, or None")
        self.num_completions, self.max_steps, self.batch_size = num_completions, max_steps, batch_size
        self.sampler, self.in_evaluation = sampler, in_evaluation
        self.policy: PolicyAccess | None = None
        self.stats = LiveValueStats()
        self.budget = self._budget = Budget(calls=budget_completions, tokens=budget_tokens)  # the run's, this rank's
        self.known = VerdictCache(KNOWN_PREFIXES)  # values of this update
        self._update: Any = None
        self._spent = {"calls": 0, "tokens": 0}

    def attach(self, trainer: Any) -> None:
        """Takes the policy, the verifier and the sampling settings of a GRPO or PPO trainer.

        Raises:
            ValueError: there is no verifier, gold answer or ``max_completion_length``, or the policy reads images or
                uses tools.
        """
        verifier = trainer.scoring.verifier
        if verifier is None:
            raise ValueError("live Monte-Carlo values: got no verifier=, expected one that judges the completions")
        if trainer.tools:
            raise ValueError(f"live Monte-Carlo values: got tools or environments, {ALONE}")
        refuse_without_gold(trainer.train_dataset, "live Monte-Carlo values")
        if reads_images(trainer):
            raise ValueError("live Monte-Carlo values: got a policy that reads images, expected one of text only")
        if trainer.max_completion_length is None:
            raise ValueError("max_completion_length: got None, expected the most tokens of a completion")
        if trainer.use_vllm and self.sampler is None:
            logger.warning("live Monte-Carlo values are sampled by transformers' generate, not by vLLM, which is slow")
        tokenizer = tokenizer_of(trainer)
        template = {"chat_template": trainer.chat_template, **trainer.chat_template_kwargs}
        self.policy = PolicyAccess(
            sampler=TrainerSampler(trainer, self.batch_size)
            if self.sampler is None
            else GeneratorSampler(self.sampler, tokenizer, template),
            verifier=verifier,
            prompt_ids=partial(prompt_ids, trainer),
            max_completion_length=trainer.max_completion_length,
            seed=_SeedsOfUpdates(trainer),
            training=lambda: trainer.model.training,
            update=lambda: trainer.state.global_step,
        )
        self._budget = self.budget.share(trainer.accelerator.num_processes)

    def detach(self) -> None:
        """Release the policy; it must be attached again before the next scores."""
        self.policy = None

    def score(self, problems: list[str], steps: list[list[str]]) -> list[list[float]]:
        """Always raises: a value needs the rollout's tokens and gold answer (``score_rollouts``)."""
        raise ValueError(
            "live Monte-Carlo values: got texts of steps, expected rollouts of the policy in training; they exist in a "
            "GRPO or PPO run only (use a PRM to score texts)"
        )

    def score_rollouts(self, rollouts: list[PolicyRollout]) -> list[list[float]]:
        """V_k for all steps of every rollout; see ``RolloutScorer``.

        Raises:
            ValueError: it is not attached to a policy.
        """
        if self.policy is None:
            raise ValueError("live Monte-Carlo values: got no policy, expected attach(trainer) to be called first")
        if any(0 in (rollout.policy_mask or ()) for rollout in rollouts):
            raise ValueError(f"live Monte-Carlo values: got tokens that an environment wrote, {ALONE}")
        scores = [[*[math.nan] * (len(rollout.lengths) - 1), rollout.verdict] for rollout in rollouts]
        if self.in_evaluation or self.policy.training():
            wanted, index = self._prefixes(rollouts)
            values = self._known_or_sampled(wanted)
            for (row, step), key in index.items():
                scores[row][step] = values[key]
            self.stats.duplicates += len(index) - len(wanted)
        self.stats.calls += 1
        self.stats.unscored_steps += sum(math.isnan(score) for row in scores for score in row)
        return scores

    def _prefixes(
        self, rollouts: list[PolicyRollout]
    ) -> tuple[dict[PrefixKey, Prefix], dict[tuple[int, int], PrefixKey]]:
        """The distinct prefixes, and a mapping from (rollout, step) to its prefix."""
        wanted: dict[PrefixKey, Prefix] = {}
        index: dict[tuple[int, int], PrefixKey] = {}
        judged = [row for row, rollout in enumerate(rollouts) if not math.isnan(rollout.verdict)]
        prompts = self.policy.prompt_ids([rollouts[row].prompt for row in judged]) if judged else []
        for row, of_prompt in zip(judged, prompts, strict=True):
            rollout = rollouts[row]
            for step, end in enumerate(list(accumulate(rollout.lengths))[:-1][: self.max_steps]):
                key = tuple(of_prompt), tuple(rollout.completion_ids[:end]), rollout.solution
                if key not in wanted:
                    limit = max(1, self.policy.max_completion_length - end)
                    wanted[key] = Prefix(rollout.prompt, key[0], key[1], limit)
                index[row, step] = key
        return wanted, index

    def _known_or_sampled(self, wanted: dict[PrefixKey, Prefix]) -> dict[PrefixKey, float]:
        """The value of every prefix; NaN where the budget does not allow it."""
        update = self.policy.update()
        if update is None or update != self._update:
            self._update, self.known, self._spent = update, VerdictCache(KNOWN_PREFIXES), {"calls": 0, "tokens": 0}
        values = {key: self.known.get(key) for key in wanted}
        new = {key: prefix for key, prefix in wanted.items() if values[key] is None}
        self.stats.cache_hits += len(wanted) - len(new)
        paid = self._paid(new)
        sampled = self._values(paid, [new[key] for key in paid])
        for key, value in zip(paid, sampled, strict=True):
            values[key] = value
            self.known.put(key, value)
        self.stats.over_budget += len(new) - len(paid)
        return {key: math.nan if value is None else value for key, value in values.items()}

    def _paid(self, prefixes: dict[PrefixKey, Prefix]) -> list[PrefixKey]:
        """The prefixes that this update's budget allows, shortest first; without a budget all, in their order."""
        if self._budget == Budget():
            return list(prefixes)
        paid = []
        for key in sorted(prefixes, key=lambda key: len(prefixes[key].ids)):
            costs = {"calls": self.num_completions, "tokens": self.num_completions * prefixes[key].limit}
            limits = {name: getattr(self._budget, name) for name in costs}
            if all(limit is None or self._spent[name] + costs[name] <= limit for name, limit in limits.items()):
                paid.append(key)
                self._spent = {name: self._spent[name] + cost for name, cost in costs.items()}
        return paid

    def _values(self, keys: Sequence[PrefixKey], prefixes: list[Prefix]) -> list[float]:
        """The value of every prefix."""
        found = self.policy.sampler.continuations(prefixes, self.num_completions, self.policy.seed())
        flat: list[Continuation] = [one for row in found for one in row]
        self.stats.prefixes += len(prefixes)
        self.stats.completions += len(flat)
        self.stats.tokens += sum(one.tokens for one in flat)
        if not flat:
            return []
        solutions = [solution for (_, _, solution), row in zip(keys, found, strict=True) for _ in row]
        verdicts = self.policy.verifier.verify([one.text for one in flat], solutions)
        check_statuses([verdict.status for verdict in verdicts])
        values = [verdict_value(verdict.reward, verdict.status) for verdict in verdicts]
        n = self.num_completions
        return [_mean(values[first : first + n]) for first in range(0, len(values), n)]


class _SeedsOfUpdates:
    """A seed for every call, from the run's seed, the update, the rank and the update's number of calls so far."""

    def __init__(self, trainer: Any) -> None:
        self.trainer, self.update, self.calls = trainer, -1, 0

    def __call__(self) -> int:
        update = self.trainer.state.global_step
        self.update, self.calls = update, self.calls + 1 if update == self.update else 0
        rank = self.trainer.accelerator.process_index
        return unit_seed(self.trainer.args.seed, "live values", update, rank, self.calls)


def _mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
