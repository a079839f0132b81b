"""Consensus filtering: keep a solution only if Monte Carlo and the judge agree on its first error (2501.07301 §3.3)."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from rlhf_prm.generation.tasks import Rejection
from rlhf_prm.step_data import StepLabels


@dataclass
class ConsensusReport:
    """Counts over pairs of labels, filled by ``add``.

    Attributes:
        matrix: solutions by (Monte-Carlo's, judge's) first error, −1 = none.
        dropped: reason → solutions dropped for it.
        positions: step position → [correct, wrong] labels among the kept.
    """

    pairs: int = 0
    kept: int = 0
    matrix: Counter = field(default_factory=Counter)
    dropped: Counter = field(default_factory=Counter)
    positions: dict[int, list[int]] = field(default_factory=dict)

    def add(self, monte_carlo: StepLabels | Rejection, judge: StepLabels | Rejection) -> StepLabels | Rejection:
        """The agreed labels (soft labels are Monte-Carlo's), or why there are none."""
        self.pairs += 1
        result = self._agreed(monte_carlo, judge)
        if isinstance(result, Rejection):
            self.dropped[result.reason] += 1
            return result
        self.kept += 1
        for position, label in enumerate(result.labels):
            self.positions.setdefault(position, [0, 0])[0 if label else 1] += 1
        return result

    def _agreed(self, monte_carlo: StepLabels | Rejection, judge: StepLabels | Rejection) -> StepLabels | Rejection:
        for name, labels in (("monte_carlo", monte_carlo), ("judge", judge)):
            if isinstance(labels, Rejection):
                return Rejection(f"no {name} label")
        mc_error, judge_error = monte_carlo.first_error, judge.first_error
        self.matrix[mc_error, judge_error] += 1
        if mc_error == judge_error:
            looked_at = len(judge.labels)
            return StepLabels(monte_carlo.labels[:looked_at], monte_carlo.soft_labels[:looked_at], "consensus")
        if mc_error < 0:
            return Rejection("only the judge finds an error")
        if judge_error < 0:
            return Rejection("only monte_carlo finds an error")
        return Rejection(f"{'monte_carlo' if mc_error < judge_error else 'the judge'} finds an error earlier")

    @property
    def kept_share(self) -> float:
        """Kept / pairs; NaN without pairs."""
        return self.kept / self.pairs if self.pairs else float("nan")

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the matrix as rows [Monte-Carlo's first error, judge's, solutions]."""
        return {
            "pairs": self.pairs,
            "kept": self.kept,
            "kept_share": self.kept_share,
            "agreement_matrix": [[mc, judge, n] for (mc, judge), n in sorted(self.matrix.items())],
            "dropped": dict(self.dropped.most_common()),
            "labels_by_position": {k: {"correct": c, "wrong": w} for k, (c, w) in sorted(self.positions.items())},
        }

    def as_text(self, most: int = 8) -> str:
        """A table to read; first errors past the ``most``-th step share a column."""
        lines = [f"kept {self.kept} of {self.pairs} solutions ({self.kept_share:.1%})"]
        lines += [f"  dropped {n:6d}  {reason}" for reason, n in self.dropped.most_common()]
        folded: Counter = Counter()
        for (mc, judge), n in self.matrix.items():
            folded[min(mc, most), min(judge, most)] += n
        columns = sorted({index for pair in folded for index in pair})
        names = ["none" if c < 0 else f">{most}" if c == most else str(c + 1) for c in columns]
        lines.append("first error, Monte-Carlo (rows) by judge (columns); steps counted from 1")
        lines.append("      " + "".join(f"{name:>7}" for name in names))
        for row, name in zip(columns, names, strict=True):
            lines.append(f"{name:>6}" + "".join(f"{folded[row, column]:7d}" for column in columns))
        lines.append("step   correct   wrong   (labels kept)")
        lines += [f"{k + 1:4d}{c:10d}{w:8d}" for k, (c, w) in sorted(self.positions.items())]
        return "\n".join(lines)


def consensus(
    monte_carlo: list[StepLabels | Rejection], judge: list[StepLabels | Rejection]
) -> tuple[list[StepLabels | Rejection], ConsensusReport]:
    """Agreed labels of each solution or why it was dropped, and the report."""
    report = ConsensusReport()
    return [report.add(mc, verdict) for mc, verdict in zip(monte_carlo, judge, strict=True)], report
