"""BatchScorer is what every scorer of a process reward model shares; PRMScorer is the one in this process."""

import math
import time
import warnings
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from rlhf_prm.prm.batching import Unit, collated, packed, plan, within_context, without_prefix
from rlhf_prm.prm.calibration import Calibration
from rlhf_prm.prm.families import Family
from rlhf_prm.prm.placement import Placement
from rlhf_prm.prm.protocol import StepScorer as StepScorer
from rlhf_prm.prm.texts import Rendered, Texts


@dataclass
class ScorerStats:
    """What a scorer has done since it was made, or since :meth:`taken`."""

    seconds: float = 0.0
    calls: int = 0
    forwards: int = 0
    shared_prefixes: int = 0  # prompts that were run once for all rollouts of their group
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


class BatchScorer(ABC):
    """What the scorer in process and the one over HTTP share: rendering, duplicates, the context, NaN, counters.

    Args:
        family: how this PRM is rendered and read.
        texts: its tokenizer.
        context: longest input in tokens. Steps past it get NaN, are counted and warned about.

    ``calibration`` turns the PRM's own scores into those that :meth:`score` gives; at first it changes nothing.
    ``between_steps_given`` says that the user chose the family's ``between_steps``.
    """

    def __init__(self, family: Family, texts: Texts, context: int):
        self.calibration = Calibration()
        self.between_steps_given = False
        self.family = family
        self.texts = texts
        self.context = context
        self.stats = ScorerStats()

    def follow_separator(self, separator: str) -> None:
        """Read steps with what stands between them in the policy's completions, where the family keeps it.

        What the user gave stays, and so does the family's own where the separator has no tag at which it could read;
        both with a warning.
        """
        own, tag = self.family.between_steps, self.family.tag
        if not own or separator == own:
            return
        if self.between_steps_given or tag is None or tag not in separator:
            why = "load_prm was told so" if self.between_steps_given else f"this PRM reads steps at {tag!r}"
            warnings.warn(
                f"the policy's steps end at {separator!r}, but the PRM reads {own!r} between them ({why})", stacklevel=2
            )
            return
        self.family = replace(self.family, between_steps=separator)

    def score(self, problems: list[str], steps: list[list[str]]) -> list[list[float]]:
        """See :meth:`StepScorer.score`. Scores do not depend on what else is in the call, nor on its order.

        Where the model gives NaN or infinity for a rollout, those steps get NaN and a warning names the rollout; the
        others keep their scores.

        Raises:
            ValueError: ``problems`` and ``steps`` differ in length, or every rollout came out as NaN (a broken model).
        """
        begun = time.perf_counter()
        rollouts, index = distinct(problems, steps)
        rendered, failure = self._rendered(rollouts)
        scorable = [i for i, r in enumerate(rendered) if r.ends]
        problem_numbers: dict[str, int] = {}
        groups = [problem_numbers.setdefault(rollouts[i][0], len(problem_numbers)) for i in scorable]
        found = self._probabilities([rendered[i] for i in scorable], groups, failure)
        scores = [[math.nan] * len(parts) for _, parts in rollouts]
        for i, values in zip(scorable, found, strict=True):
            scores[i][: len(values)] = self.calibration(values)
        self._report(rollouts, rendered, scores, scorable)
        self.stats.calls += 1
        self.stats.rollouts += len(problems)
        self.stats.duplicates += len(problems) - len(rollouts)
        self.stats.seconds += time.perf_counter() - begun
        return [list(scores[i]) for i in index]

    @abstractmethod
    def _probabilities(
        self, rendered: list[Rendered], groups: list[int], failure: Exception | None
    ) -> list[list[float]]:
        """One score for each read position, NaN where the model gave no number; raises ``failure`` if there is one.

        ``groups`` has the same number for the rollouts of one problem.
        """

    def _rendered(self, rollouts: list[tuple[str, list[str]]]) -> tuple[list[Rendered], Exception | None]:
        """Every rollout cut to the context; an exception is given back, for other ranks must hear of it first."""
        try:
            return [
                within_context(self.family.rendered(self.texts, problem, steps), self.context)
                if steps
                else Rendered([], [], 0)
                for problem, steps in rollouts
            ], None
        except Exception as error:
            return [], error

    def _report(
        self,
        rollouts: list[tuple[str, list[str]]],
        rendered: list[Rendered],
        scores: list[list[float]],
        scorable: list[int],
    ) -> None:
        broken = {i: sum(map(math.isnan, scores[i][: len(rendered[i].ends)])) for i in scorable}
        broken = {i: count for i, count in broken.items() if count}
        if broken:
            names = "; ".join(_named(rollouts[i]) for i in list(broken)[:3])
            if len(broken) == len(scorable) > 1:
                raise ValueError(
                    f"the PRM gave NaN or infinity for all {len(broken)} rollouts, e.g. {names}: its weights are "
                    "damaged or do not bear this dtype (try dtype='bfloat16' or 'float32')."
                )
            self.stats.non_finite_steps += sum(broken.values())
            _warn(f"the PRM gave NaN or infinity for {len(broken)} rollout(s): {names}. Their scores are NaN.")
        past = [i for i, (_, steps) in enumerate(rollouts) if len(rendered[i].ends) < len(steps)]
        if past:
            missing = sum(len(rollouts[i][1]) - len(rendered[i].ends) for i in past)
            self.stats.unscored_steps += missing
            _warn(
                f"{missing} step(s) of {len(past)} rollout(s) lie past the PRM's context of {self.context} tokens and "
                f"have NaN for a score, e.g. {_named(rollouts[past[0]])}. Shorten the completions, or choose a PRM "
                "with a longer context."
            )


class PRMScorer(BatchScorer):
    """Scores steps with a PRM in this process: micro-batches of like length, the head at step ends only.

    Args:
        placement: where its weights live; see :mod:`rlhf_prm.prm.placement`.
        max_batch_tokens: padded size of a micro-batch.
        sharing_from: the prompt of a group is run once where that saves at least this part of the group's tokens;
            ``math.inf`` for never. See :func:`rlhf_prm.prm.batching.plan`.
        packs: micro-batches are one row without padding; for flash attention.
        family, texts, context: see :class:`BatchScorer`.
    """

    name_or_path: str | None = None  # the checkpoint, where there is one: a critic can start from it

    def __init__(
        self,
        family: Family,
        texts: Texts,
        placement: Placement,
        *,
        context: int,
        max_batch_tokens: int,
        sharing_from: float = math.inf,
        packs: bool = False,
    ):
        super().__init__(family, texts, context)
        self.placement = placement
        self.max_batch_tokens = max_batch_tokens
        self.sharing_from = sharing_from
        self.packs = packs

    def _probabilities(
        self, rendered: list[Rendered], groups: list[int], failure: Exception | None
    ) -> list[list[float]]:
        units = plan(rendered, groups, self.max_batch_tokens, self.sharing_from)
        forwards = self.placement.agreed(sum(len(unit.batches) for unit in units), failure)
        if failure is not None:
            raise failure
        log_odds = self._run(units, rendered, forwards)
        values = torch.where(log_odds.isfinite(), log_odds.sigmoid(), math.nan).tolist()
        found: list[list[float]] = [[] for _ in rendered]
        begin = 0
        for i in (i for unit in units for batch in unit.batches for i in batch):
            found[i] = values[begin : begin + len(rendered[i].ends)]
            begin += len(found[i])
        return found

    def _run(self, units: list[Unit], rendered: list[Rendered], forwards: int) -> Tensor:
        """Log-odds at all read positions in the order of the units, in fp32 on the CPU: (N,)."""
        if forwards == 0:
            return torch.empty(0)
        parts = []
        with torch.no_grad(), self.placement.resident() as reader:
            for unit in units:
                past = self._past(reader, unit.prefix)
                for batch in unit.batches:
                    rows = [without_prefix(rendered[i], len(unit.prefix)) for i in batch]
                    parts.append(self._forward(reader, rows, **past))
            dummy = Rendered([self.texts.pad_id] * 2, [1], 0)
            for _ in range(forwards - len(parts)):  # keep step with the ranks that have more
                self._forward(reader, [dummy])
            return torch.cat(parts).float().cpu() if parts else torch.empty(0)

    def _past(self, reader: Any, prefix: list[int]) -> dict[str, Any]:
        if not prefix:
            return {}
        self.stats.tokens += len(prefix)
        self.stats.padded_tokens += len(prefix)
        self.stats.shared_prefixes += 1
        return {"past": reader.prefix(torch.tensor([prefix], device=self.placement.device))}

    def _forward(self, reader: Any, rows: list[Rendered], **past: Any) -> Tensor:
        inputs = packed(rows) if self.packs and not past else collated(rows, self.texts.pad_id)
        self.stats.forwards += 1
        self.stats.tokens += sum(len(row.ids) for row in rows)
        self.stats.padded_tokens += inputs.input_ids.numel()
        log_odds: Tensor = reader(**inputs.to(self.placement.device).tensors(), **past)
        return log_odds


def distinct(problems: list[str], steps: list[list[str]]) -> tuple[list[tuple[str, list[str]]], list[int]]:
    """The different rollouts, and for each rollout given its place among them."""
    if len(problems) != len(steps):
        raise ValueError(f"got {len(problems)} problems and {len(steps)} lists of steps: expected one list a problem.")
    places: dict[tuple[str, tuple[str, ...]], int] = {}
    index = [places.setdefault((p, tuple(s)), len(places)) for p, s in zip(problems, steps, strict=True)]
    return [(problem, list(parts)) for problem, parts in places], index


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=5)  # the caller of score


def _named(rollout: tuple[str, list[str]]) -> str:
    problem, steps = rollout
    return f"problem {problem[:50]!r} with {len(steps)} steps, the first {steps[0][:50]!r}"
