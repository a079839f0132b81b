"""BatchScorer, the base of the scorers of process reward models, and PRMScorer, which scores in this process."""

import math
import time
import warnings
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rlhf_prm.prm.batching import Unit, collated, packed, plan, within_context, without_prefix
from rlhf_prm.prm.calibration import Calibration
from rlhf_prm.prm.families import Family
from rlhf_prm.prm.placement import Placement
from rlhf_prm.prm.protocol import StepScorer as StepScorer
from rlhf_prm.prm.texts import Rendered, Texts
from rlhf_prm.prm.windows import PAST_CONTEXT, Window, windows


@dataclass
class ScorerStats:
    """A scorer's counts since it was made, or since :meth:`taken`."""

    seconds: float = 0.0
    calls: int = 0
    forwards: int = 0
    shared_prefixes: int = 0  # prompts that were run once for all rollouts of their group
    rollouts: int = 0
    duplicates: int = 0  # rollouts equal to another one of the same call, which need no forward
    tokens: int = 0  # run through the model, padding not counted
    padded_tokens: int = 0  # run through the model in all
    unscored_steps: int = 0  # past the context: NaN
    windowed_steps: int = 0  # past the context: scored after only the last steps before them
    non_finite_steps: int = 0  # the model gave NaN or infinity: NaN

    def taken(self) -> dict[str, float]:
        """The numbers as a dict; the counters start again at 0."""
        values = asdict(self)
        for field in fields(self):
            setattr(self, field.name, field.default)
        return values


class BatchScorer(ABC):
    """Base of the scorer in process and the one over HTTP: rendering, duplicates, the context, NaN, counts.

    Args:
        family: how this PRM is rendered and read.
        texts: its tokenizer.
        context: longest input in tokens.
        past_context: how steps past it are scored. "nan": they get NaN. "window": they are read after the
            problem and the steps before them, as many as half a context holds (:mod:`rlhf_prm.prm.windows`); the
            text between is not seen. Steps without a score are counted and warned about.

    ``calibration`` turns the PRM's own scores into those that :meth:`score` returns; by default it changes nothing.
    ``target`` is "outcome" for an outcome reward model, which was trained on the verdict at the last step only
    (:func:`~rlhf_prm.prm.protocol.target_of`).
    ``between_steps_given`` says that the user chose the family's ``between_steps``.
    """

    target: str = "steps"

    def __init__(self, family: Family, texts: Texts, context: int, past_context: str = "nan"):
        if past_context not in PAST_CONTEXT:
            raise ValueError(f"past_context={past_context!r}: expected one of {', '.join(PAST_CONTEXT)}.")
        self.past_context = past_context
        self.calibration = Calibration()
        self.between_steps_given = False
        self.family = family
        self.texts = texts
        self.context = context
        self.stats = ScorerStats()

    def follow_separator(self, separator: str) -> None:
        """Read steps with the policy's separator between them, if the family keeps a text between steps.

        A text that the user gave stays, and so does the family's own if the separator does not contain its tag;
        both cases give a warning.
        """
        own, tag = self.family.between_steps, self.family.tag
        if not own or separator == own:
            return
        if self.between_steps_given or tag is None or tag not in separator:
            why = "set in load_prm" if self.between_steps_given else f"this PRM reads steps at {tag!r}"
            warnings.warn(
                f"the policy's steps end at {separator!r}, but the PRM reads {own!r} between them ({why})", stacklevel=2
            )
            return
        self.family = replace(self.family, between_steps=separator)

    def score(self, problems: list[str], steps: list[list[str]]) -> list[list[float]]:
        """See :meth:`StepScorer.score`. Scores do not depend on the other rollouts of the call, nor on their order.

        If the model gives NaN or infinity for a rollout, those steps get NaN and a warning names the rollout; the
        others keep their scores.

        Raises:
            ValueError: ``problems`` and ``steps`` differ in length, or every rollout came out as NaN (a broken model).
        """
        begun = time.perf_counter()
        rollouts, index = distinct(problems, steps)
        pieces, failure = self._pieces(rollouts)
        problem_numbers: dict[str, int] = {}
        groups = [problem_numbers.setdefault(rollouts[i][0], len(problem_numbers)) for i, _ in pieces]
        found = self._probabilities([window.rendered for _, window in pieces], groups, failure)
        scores = [[math.nan] * len(parts) for _, parts in rollouts]
        read: list[list[int]] = [[] for _ in rollouts]
        for (i, window), values in zip(pieces, found, strict=True):
            own = self.calibration(values)
            scores[i][window.new.start : window.new.stop] = own[window.skip :]
            read[i] += window.new
            self.stats.windowed_steps += len(window.new) if window.first else 0
        self._report(rollouts, read, scores)
        self.stats.calls += 1
        self.stats.rollouts += len(problems)
        self.stats.duplicates += len(problems) - len(rollouts)
        self.stats.seconds += time.perf_counter() - begun
        return [list(scores[i]) for i in index]

    @abstractmethod
    def _probabilities(
        self, rendered: list[Rendered], groups: list[int], failure: Exception | None
    ) -> list[list[float]]:
        """One score for each read position, NaN if the model gave no finite number; raises ``failure`` if there is one.

        ``groups`` has the same number for the rollouts of one problem.
        """

    def _rendered(self, rollouts: list[tuple[str, list[str]]]) -> tuple[list[Rendered], Exception | None]:
        """Every rollout cut to the context. An exception is returned, because other ranks must be informed first."""
        try:
            return [
                self._one_rendered(problem, steps) if steps else Rendered([], [], 0) for problem, steps in rollouts
            ], None
        except Exception as error:
            return [], error

    def _pieces(self, rollouts: list[tuple[str, list[str]]]) -> tuple[list[tuple[int, Window]], Exception | None]:
        """(rollout, window), one or more for each rollout that can be read."""
        rendered, failure = self._rendered(rollouts)
        pieces = [(i, Window(one)) for i, one in enumerate(rendered) if one.ends]
        if failure is not None or self.past_context == "nan":
            return pieces, failure
        try:
            return [
                (i, window)
                for i, ((problem, steps), whole) in enumerate(zip(rollouts, rendered, strict=True))
                for window in windows(partial(self._one_rendered, problem), steps, whole)
            ], None
        except Exception as error:  # it is raised once the other ranks know of it
            return [], error

    def _one_rendered(self, problem: str, steps: list[str]) -> Rendered:
        return within_context(self.family.rendered(self.texts, problem, steps), self.context)

    def _report(self, rollouts: list[tuple[str, list[str]]], read: list[list[int]], scores: list[list[float]]) -> None:
        """Count and warn; ``read`` has the steps of each rollout that the PRM has read."""
        scorable = [i for i, steps in enumerate(read) if steps]
        broken = {i: sum(math.isnan(scores[i][k]) for k in read[i]) for i in scorable}
        broken = {i: count for i, count in broken.items() if count}
        if broken:
            names = "; ".join(_named(rollouts[i]) for i in list(broken)[:3])
            if len(broken) == len(scorable) > 1:
                raise ValueError(
                    f"the PRM gave NaN or infinity for all {len(broken)} rollouts, e.g. {names}: its weights are "
                    "damaged or overflow in this dtype (try dtype='bfloat16' or 'float32')."
                )
            self.stats.non_finite_steps += sum(broken.values())
            _warn(f"the PRM gave NaN or infinity for {len(broken)} rollout(s): {names}. Their scores are NaN.")
        past = [i for i, (_, steps) in enumerate(rollouts) if len(read[i]) < len(steps)]
        if past:
            missing = sum(len(rollouts[i][1]) - len(read[i]) for i in past)
            self.stats.unscored_steps += missing
            advice = " past_context='window' scores them by the steps before." if self.past_context == "nan" else ""
            _warn(
                f"{missing} step(s) of {len(past)} rollout(s) lie past the PRM's context of {self.context} tokens and "
                f"have NaN for a score, e.g. {_named(rollouts[past[0]])}. Shorten the completions, or choose a PRM "
                f"with a longer context.{advice}"
            )


class PRMScorer(BatchScorer):
    """Scores steps with a PRM in this process: micro-batches of similar lengths, the head at step ends only.

    Args:
        placement: where its weights are kept; see :mod:`rlhf_prm.prm.placement`.
        max_batch_tokens: padded size of a micro-batch.
        sharing_from: the prompt of a group is run once if that saves at least this share of the group's tokens;
            ``math.inf`` means never. See :func:`rlhf_prm.prm.batching.plan`.
        packs: whether micro-batches are one row without padding, for flash attention.
        family, texts, context, past_context: see :class:`BatchScorer`.
    """

    name_or_path: str | None = None  # the checkpoint, if there is one: a critic can start from it

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
        past_context: str = "nan",
    ):
        super().__init__(family, texts, context, past_context)
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
            for _ in range(forwards - len(parts)):  # dummy forwards, as other ranks have more
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
    """The distinct rollouts, and for each given rollout its index among them."""
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
