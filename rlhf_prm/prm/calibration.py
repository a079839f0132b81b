"""Calibrates a PRM's log-odds into probabilities to which thresholds can be applied."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch

NEWTON_STEPS = 50


@dataclass(frozen=True)
class Calibration:
    """score = σ(scale · log-odds + shift), where σ(log-odds) is the PRM's own score. By default nothing changes.

    A positive scale keeps the order of all scores, and changes what 0.5 and 0.8 mean.
    """

    scale: float = 1.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and math.isfinite(self.shift) and self.scale > 0):
            raise ValueError(
                f"score_scale={self.scale}, score_shift={self.shift}: expected finite numbers and a positive scale, as "
                "fitted_calibration gives them."
            )

    def __call__(self, scores: Sequence[float]) -> list[float]:
        """The PRM's own scores, calibrated; 0, 1 and NaN stay as they are."""
        if self == Calibration():
            return list(scores)
        return [self._one(score) for score in scores]

    def _one(self, score: float) -> float:
        if math.isnan(score) or score <= 0 or score >= 1:
            return score
        log_odds = self.scale * math.log(score / (1 - score)) + self.shift
        return 1 / (1 + math.exp(-log_odds)) if log_odds > -700 else 0.0


def fitted_calibration(
    scores: Sequence[Sequence[float]], labels: Sequence[Sequence[bool | int | float | None]]
) -> Calibration:
    """The scale and shift under which labelled steps are most likely (Platt scaling).

    Args:
        scores: of each rollout, the scores of a PRM that was loaded without a calibration.
        labels: of each step, 1 if it is right, 0 if wrong; ``None`` or NaN if unknown (after the first error).

    Raises:
        ValueError: the two differ in shape, one class is missing, all scores are equal, or the scores are not better
            than chance, so that no positive scale fits.
    """
    log_odds, right = _labelled(scores, labels)
    spread = log_odds.std(correction=0)
    if not 0 < right.mean() < 1 or spread == 0:
        raise ValueError(
            f"cannot calibrate on {len(right)} labelled steps of which {int(right.sum())} are right, with scores that "
            f"differ by {float(spread):.2g} in log-odds: expected right and wrong steps with different scores."
        )
    design = torch.stack([(log_odds - log_odds.mean()) / spread, torch.ones_like(log_odds)], dim=1)
    positive, negative = right.sum(), (1 - right).sum()
    targets = torch.where(right == 1, (positive + 1) / (positive + 2), 1 / (negative + 2))  # Platt's, always finite
    weights = torch.zeros(2, dtype=torch.float64)
    for _ in range(NEWTON_STEPS):
        p = (design @ weights).sigmoid()
        hessian = design.T @ (design * (p * (1 - p))[:, None]) + 1e-9 * torch.eye(2, dtype=torch.float64)
        step = torch.linalg.solve(hessian, design.T @ (targets - p))
        weights = weights + step.clamp(-1, 1)
        if step.abs().max() < 1e-10:
            break
    scale = float(weights[0] / spread)
    if scale <= 0:
        raise ValueError(
            f"the best scale for these {len(right)} labelled steps is {scale:.3g}: wrong steps score no lower than "
            "right ones. Check the labels, the family and, for an implicit PRM, the reference model."
        )
    return Calibration(scale, float(weights[1]) - scale * float(log_odds.mean()))


def _labelled(
    scores: Sequence[Sequence[float]], labels: Sequence[Sequence[bool | int | float | None]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-odds and labels of the steps that have both, in float64."""
    if [len(row) for row in scores] != [len(row) for row in labels]:
        raise ValueError("scores and labels differ in shape: expected one label for each step of each rollout.")
    pairs = [
        (math.log(score / (1 - score)), float(label))
        for row, row_labels in zip(scores, labels, strict=True)
        for score, label in zip(row, row_labels, strict=True)
        if 0 < score < 1 and label is not None and not math.isnan(label)
    ]
    if not pairs:
        raise ValueError("no step has both a score between 0 and 1 and a label.")
    log_odds, right = torch.tensor(pairs, dtype=torch.float64).unbind(1)
    return log_odds, right


def warn_of_narrow_scores(name: str, beta: float) -> None:
    """Warn that thresholds mean nothing for an implicit PRM's uncalibrated scores."""
    warnings.warn(
        f"{name} is an implicit PRM read at β = {beta:g}: its own scores lie close to 1/2 whatever the step is worth, "
        "so thresholds (0.5 of an evaluation, 0.8 of vppo) mean nothing for them, and shaping hardly sees them. Fit "
        "score_scale= and score_shift= on labelled steps with rlhf_prm.prm.fitted_calibration (docs/prms.md), or set "
        "score_scale=.",
        stacklevel=3,
    )
