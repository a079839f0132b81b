"""StepScorer: what trainers, evaluations and audits need of a process reward model; PRMScorer: one in process."""

import math
import time
import warnings
from dataclasses import asdict, dataclass, fields
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from rlhf_prm.prm.batching import collated, token_budget_batches, within_context
from rlhf_prm.prm.families import Family
from rlhf_prm.prm.placement import Placement
from rlhf_prm.prm.texts import Rendered, Texts


@runtime_checkable
class StepScorer(Protocol):
    """Anything that scores reasoning steps."""

    def score(self, problems: list[str], steps: list[list[str]]) -> list[list[float]]:
        """P(step correct | problem, steps so far) in [0, 1]: for each rollout one score per step.

        NaN marks a step that could not be scored (past the model's context).
        """
        ...


@dataclass
class ScorerStats:
    """What a scorer has done since it was made, or since :meth:`taken`."""

    seconds: float = 0.0
    calls: int = 0
    forwards: int = 0
    rollouts: int = 0
    duplicates: int = 0  # rollouts that another one in the same call spared a forward
    tokens: int = 0  # run through the model, padding not counted
    padded_tokens: int = 0  # run through the model in all
    unscored_steps: int = 0  # past the context: NaN
    non_finite_steps: int = 0  # the model gave NaN or infinity: NaN

    def taken(self) -> dict[str, float]:
        """The numbers as a dict; the counters start again at 0."""
        values = asdict(self)
        for field in fields(self):
            setattr(self, field.name, field.default)
        return values


class PRMScorer:
    """Scores steps with a PRM: identical rollouts once, in micro-batches of like length, the head at step ends only.

    Args:
        family: how this PRM is rendered and read.
        texts: its tokenizer.
        placement: where its weights live; see :mod:`rlhf_prm.prm.placement`.
        context: longest input in tokens. Steps past it get NaN, are counted and warned about.
        max_batch_tokens: padded size of a micro-batch.
        stats: counters of time and work, e.g. for a trainer's log.
    """

    def __init__(self, family: Family, texts: Texts, placement: Placement, *, context: int, max_batch_tokens: int):
        self.family = family
        self.texts = texts
        self.placement = placement
        self.context = context
        self.max_batch_tokens = max_batch_tokens
        self.stats = ScorerStats()

    def score(self, problems: list[str], steps: list[list[str]]) -> list[list[float]]:
        """See :meth:`StepScorer.score`. Scores do not depend on what else is in the call, nor on its order.

        Where the model gives NaN or infinity for a rollout, that rollout's steps get NaN and a warning names it; the
        others keep their scores.

        Raises:
            ValueError: ``problems`` and ``steps`` differ in length, or every rollout came out as NaN (a broken model).
        """
        begun = time.perf_counter()
        rollouts, index = distinct(problems, steps)
        rendered, failure = self._rendered(rollouts)
        lengths = [len(r.ids) for r in rendered]
        scorable = [i for i, length in enumerate(lengths) if length]
        batches = token_budget_batches([lengths[i] for i in scorable], self.max_batch_tokens)
        forwards = self.placement.agreed(len(batches), failure)
        if failure is not None:
            raise failure
        log_odds = self._run([[rendered[scorable[i]] for i in batch] for batch in batches], forwards)
        order = [scorable[i] for batch in batches for i in batch]
        scores = self._scores(rollouts, rendered, order, log_odds)
        self.stats.calls += 1
        self.stats.rollouts += len(problems)
        self.stats.duplicates += len(problems) - len(rollouts)
        self.stats.seconds += time.perf_counter() - begun
        return [list(scores[i]) for i in index]

    def _rendered(self, rollouts: list[tuple[str, list[str]]]) -> tuple[list[Rendered], Exception | None]:
        """Every rollout cut to the context; an exception is given back, for other ranks must hear of it first."""
        try:
            nothing = Rendered([], [], 0)
            return [
                within_context(self.family.rendered(self.texts, problem, steps), self.context) if steps else nothing
                for problem, steps in rollouts
            ], None
        except Exception as error:
            return [], error

    def _run(self, batches: list[list[Rendered]], forwards: int) -> Tensor:
        """Log-odds at all read positions, batch by batch, in fp32 on the CPU: (N,)."""
        if forwards == 0:
            return torch.empty(0)
        parts = []
        device = self.placement.device
        with torch.no_grad(), self.placement.resident() as reader:
            for batch in batches:
                inputs = collated(batch, self.texts.pad_id, pin=device.type == "cuda").to(device)
                parts.append(reader(inputs.input_ids, inputs.rows, inputs.columns, inputs.starts))
                self.stats.tokens += sum(len(r.ids) for r in batch)
                self.stats.padded_tokens += inputs.input_ids.numel()
            for _ in range(forwards - len(batches)):  # keep step with the ranks that have more
                dummy = collated([Rendered([self.texts.pad_id] * 2, [1], 0)], self.texts.pad_id).to(device)
                reader(dummy.input_ids, dummy.rows, dummy.columns, dummy.starts)
            self.stats.forwards += forwards
            return torch.cat(parts).float().cpu() if parts else torch.empty(0)

    def _scores(self, rollouts, rendered: list[Rendered], order: list[int], log_odds: Tensor) -> list[list[float]]:
        scores = [[math.nan] * len(steps) for _, steps in rollouts]
        broken = []
        begin = 0
        for i in order:
            count = len(rendered[i].ends)
            part = log_odds[begin : begin + count]
            begin += count
            if not bool(part.isfinite().all()):
                broken.append(i)
                self.stats.non_finite_steps += int((~part.isfinite()).sum())
            part = torch.where(part.isfinite(), part, math.nan)
            scores[i][:count] = part.sigmoid().tolist()
        self._report(rollouts, rendered, order, broken)
        return scores

    def _report(self, rollouts, rendered: list[Rendered], order: list[int], broken: list[int]) -> None:
        if broken:
            names = "; ".join(_named(rollouts[i]) for i in broken[:3])
            if len(broken) == len(order) > 1:
                raise ValueError(
                    f"the PRM gave NaN or infinity for all {len(broken)} rollouts, e.g. {names}: its weights are "
                    "damaged or do not bear this dtype (try dtype='bfloat16' or 'float32')."
                )
            warnings.warn(
                f"the PRM gave NaN or infinity for {len(broken)} rollout(s): {names}. Their scores are NaN.",
                stacklevel=4,
            )
        past = [i for i, (_, steps) in enumerate(rollouts) if len(rendered[i].ends) < len(steps)]
        if past:
            missing = sum(len(rollouts[i][1]) - len(rendered[i].ends) for i in past)
            self.stats.unscored_steps += missing
            warnings.warn(
                f"{missing} step(s) of {len(past)} rollout(s) lie past the PRM's context of {self.context} tokens and "
                f"have NaN for a score, e.g. {_named(rollouts[past[0]])}. Shorten the completions, or choose a PRM "
                "with a longer context.",
                stacklevel=4,
            )


def distinct(problems: list[str], steps: list[list[str]]) -> tuple[list[tuple[str, list[str]]], list[int]]:
    """The different rollouts, and for each rollout given its place among them."""
    if len(problems) != len(steps):
        raise ValueError(f"got {len(problems)} problems and {len(steps)} lists of steps: expected one list a problem.")
    places: dict[tuple, int] = {}
    index = [places.setdefault((p, tuple(s)), len(places)) for p, s in zip(problems, steps, strict=True)]
    return [(problem, list(parts)) for problem, parts in places], index


def _named(rollout: tuple[str, list[str]]) -> str:
    problem, steps = rollout
    return f"problem {problem[:50]!r} with {len(steps)} steps, the first {steps[0][:50]!r}"
