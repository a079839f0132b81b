"""Explains the result of a run beside its baseline and its ceiling, in plain sentences."""

import math
from typing import Any

ERRORS = 2.0  # standard errors that a difference must have to count


def meaning(summary: dict[str, Any]) -> list[str]:
    """One or two sentences on a run, its outcome-only baseline and, where it was trained, the ceiling.

    A difference counts if it is above two standard errors of two independent shares of ``eval_problems``. One run
    differs from another of the same settings by more than that, so the last sentence says so.
    """
    baseline, problems = summary.get("baseline"), summary.get("eval_problems") or 0
    if not baseline or baseline["method"] != "outcome" or not problems:
        return []
    own, plain = _after(summary), _after(baseline)
    top = _after(summary["ceiling"]) if summary.get("ceiling") else None
    if own is None or plain is None:
        return []
    sentences = [_gained(own - plain, _error(own, plain, problems))]
    if top is not None:
        sentences.append(_possible(own - plain, top - plain, _error(top, plain, problems)))
    of_turns = (summary.get("settings") or {}).get("turn_scores")
    page = "docs/turns.md" if of_turns else "docs/dense_rewards.md"
    sentences.append(f"This is one build and one seed: {page} has several.")
    return sentences


def _gained(gain: float, error: float) -> str:
    if gain > ERRORS * error:
        return f"The process reward helped: accuracy ended {gain:.3f} above outcome-only."
    if gain < -ERRORS * error:
        return f"The process reward did harm: accuracy ended {-gain:.3f} below outcome-only."
    return f"The process reward made no difference that can be seen: {gain:+.3f} (standard error {error:.3f})."


def _possible(gain: float, room: float, error: float) -> str:
    if room <= ERRORS * error:
        return f"Nor was there anything to gain: exact step labels end at {room:+.3f}."
    if gain >= room:
        return f"Exact step labels bring {room:.3f}: a better PRM would not help this method further."
    return f"Exact step labels bring {room:.3f}: {room - gain:.3f} of it is lost to the errors of the PRM."


def _after(row: dict[str, Any]) -> float | None:
    return row["accuracy"]["after"]


def _error(a: float, b: float, problems: int) -> float:
    return math.sqrt((a * (1 - a) + b * (1 - b)) / problems)
