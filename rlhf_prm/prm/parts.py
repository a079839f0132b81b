"""A scorer that reads one part of a reasoning model's completion: its thinking, or its answer."""

import math
from typing import Any

from rlhf_prm.steps import ToolResult
from rlhf_prm.thinking import Thinking, check_part


class PartScorer:
    """Wraps ``scorer`` so that it reads the steps of one part only, without the tags; all other steps get NaN.

    The steps must be cut between the parts (``StepSplitter(thinking=…)``). Everything else is passed on to ``scorer``.

    Args:
        scorer: it has ``score``, and may have ``submit``.
        which: "thinking" or "answer".

    Raises:
        ValueError: the part is unknown, or the scorer scores tokens or rollouts and reads no texts.
    """

    def __init__(self, scorer: Any, which: str, thinking: Thinking) -> None:
        check_part(which, "prm_reads")
        if not hasattr(scorer, "score"):
            raise ValueError(
                f"prm_reads: got {which!r} for {type(scorer).__name__}, expected 'all': it scores the policy's own "
                "tokens, not texts of which a part could be left out; credit_reads chooses the part that earns credit"
            )
        self.scorer, self.which, self.thinking = scorer, which, thinking

    def score(self, problems: list[str], steps: list[list[str]]) -> list[list[float]]:
        """See ``StepScorer.score``."""
        shown = self._shown(steps)
        return self._spread(self.scorer.score(*self._asked(problems, shown)), shown)

    def __getattr__(self, name: str) -> Any:
        if name == "scorer":  # it is not set yet while this object is unpickled
            raise AttributeError(name)
        own = getattr(self.scorer, name)
        return self._submit if name == "submit" else own

    def _submit(self, problems: list[str], steps: list[list[str]]) -> "_PartOfPending":
        shown = self._shown(steps)
        return _PartOfPending(self, self.scorer.submit(*self._asked(problems, shown)), shown)

    def _shown(self, steps: list[list[str]]) -> list[list[str | None]]:
        """The steps of the part, with None in place of the others."""
        return [
            [
                _shown(step, self.thinking) if reads else None
                for step, reads in zip(row, self.thinking.reads(row, self.which), strict=True)
            ]
            for row in steps
        ]

    def _asked(self, problems: list[str], shown: list[list[str | None]]) -> tuple[list[str], list[list[str]]]:
        """Problems and steps of the rollouts that have the part."""
        rows = [
            (problem, [step for step in row if step is not None]) for problem, row in zip(problems, shown, strict=True)
        ]
        return [problem for problem, row in rows if row], [row for _, row in rows if row]

    def _spread(self, scores: list[list[float]], shown: list[list[str | None]]) -> list[list[float]]:
        """The scores at the steps that were shown, NaN at the others."""
        waiting = iter(scores)
        spread = []
        for row in shown:
            own = iter(next(waiting) if any(step is not None for step in row) else ())
            spread.append([math.nan if step is None else next(own) for step in row])
        return spread


def _shown(step: str, thinking: Thinking) -> str:
    """The step without the tags; a tool result stays a tool result."""
    return step if isinstance(step, ToolResult) else thinking.without_tags(step).strip()


class _PartOfPending:
    """Scores that are being computed."""

    def __init__(self, scorer: PartScorer, pending: Any, shown: list[list[str | None]]) -> None:
        self._scorer, self._pending, self._shown = scorer, pending, shown

    def result(self) -> list[list[float]]:
        """Wait for the scores."""
        return self._scorer._spread(self._pending.result(), self._shown)
