"""The heat-maps: rollouts as rows of coloured steps, cut to a budget of characters."""

import math
from itertools import accumulate
from typing import Any

from rlhf_prm.report.plot_parts import number
from rlhf_prm.report.runs import Rollout
from rlhf_prm.report.sampling import Gathered, ShownGroup

MOST_STEPS, HEAD_STEPS, MOST_STEP_CHARACTERS, MOST_PROMPT_CHARACTERS = 48, 32, 1200, 2400
MARKUP_PER_STEP = 260  # characters of markup that a step costs besides its text
MARKUP_PER_TOKEN = 44


def colour(score: float) -> str:
    """The CSS class of the diverging scale, q0 (score 0) to q10 (score 1); "" without a score."""
    return f"q{round(10 * min(1.0, max(0.0, score)))}" if math.isfinite(score) else ""


def token_reach(gathered: Gathered) -> float:
    """The token score, plus or minus, at which the colours end: 95 of 100 shown tokens have less. 0 = no tokens."""
    rollouts = [rollout for group in gathered.groups for rollout in (*group.best, *group.worst)]
    sizes = sorted(
        abs(score) for rollout in rollouts for step in rollout.tokens for _, score in step if math.isfinite(score)
    )
    return sizes[int(0.95 * (len(sizes) - 1))] if sizes else 0.0


def gallery(title: str, gathered: Gathered, budget: int) -> dict[str, Any]:
    """What the template needs to show a run's rollouts in at most about ``budget`` characters."""
    reach = token_reach(gathered)
    groups = [_disagreements(gathered, reach)] if gathered.overrated or gathered.underrated else []
    groups += [_group_view(group, reach) for group in gathered.groups]
    kept, spent = [], 0
    for group in groups:
        spent += _size(group)
        if kept and spent > budget:
            break
        kept.append(group)
    shown = sum(len(end["rollouts"]) for group in kept for end in group["ends"])
    note = (
        f"{shown} of {gathered.rollouts} logged rollouts: the best and the worst by advantage of groups drawn evenly"
        " over the updates without looking at them, and those on which PRM and verifier disagree most."
    )
    if len(kept) < len(groups):
        note += f" {len(groups) - len(kept)} more groups were left out to keep the page small."
    if reach:
        note += f" Each token has the colour of its own score, from orange (−{reach:.3g}) over grey (0) to blue."
    return {"title": title, "note": note, "groups": kept}


def _group_view(group: ShownGroup, reach: float) -> dict[str, Any]:
    return {
        "title": f"Update {group.update}: {group.correct} of {group.size} correct",
        "prompt": clipped(group.prompt, MOST_PROMPT_CHARACTERS),
        "ends": [
            {"title": name, "rollouts": [_rollout_view(rollout, reach) for rollout in rollouts]}
            for name, rollouts in (("best", group.best), ("worst", group.worst))
            if rollouts
        ],
    }


def _disagreements(gathered: Gathered, reach: float) -> dict[str, Any]:
    ends = (
        ("highest scores, yet not correct", gathered.overrated),
        ("lowest scores, yet correct", gathered.underrated),
    )
    return {
        "title": "Where PRM and verifier disagree most",
        "prompt": "",
        "ends": [
            {"title": name, "rollouts": [_rollout_view(rollout, reach, with_prompt=True) for rollout in rollouts]}
            for name, rollouts in ends
            if rollouts
        ],
    }


def _rollout_view(rollout: Rollout, reach: float = 0.0, with_prompt: bool = False) -> dict[str, Any]:
    steps: list[dict[str, Any]] = []
    for k in range(len(rollout.steps) + 1):
        steps += [_result_view(text) for after, text in rollout.tool_results if after == k]
        steps += [_step_view(rollout, k, reach)] if k < len(rollout.steps) else []
    if len(steps) > MOST_STEPS:
        tail = MOST_STEPS - HEAD_STEPS
        steps = [*steps[:HEAD_STEPS], {"gap": len(steps) - MOST_STEPS}, *steps[-tail:]]
    prompt = f"update {rollout.update}: {clipped(rollout.prompt, 300)}" if with_prompt else ""
    return {
        "verdict": rollout.verdict,
        "right": rollout.right is True,
        "mean_score": number(rollout.mean_score, 2),
        "advantage": number(rollout.advantage, 2),
        "prompt": prompt,
        "count": len(rollout.steps),
        "steps": steps,
    }


def _result_view(text: str) -> dict[str, Any]:
    """The view of a tool result, which is not a step and has no score."""
    return {"tool": True, "text": clipped(text, MOST_STEP_CHARACTERS)}


def _step_view(rollout: Rollout, k: int, reach: float) -> dict[str, Any]:
    score = rollout.scores[k]
    return {
        "k": k + 1,
        "text": clipped(rollout.steps[k], MOST_STEP_CHARACTERS),
        "score": f"{score:.2f}" if math.isfinite(score) else "–",
        "colour": colour(score),
        "advantage": number(rollout.advantages[k]),
        "process_reward": number(rollout.process_rewards[k]),
        "tokens": [_token_view(*token, reach) for token in _first_tokens(rollout.tokens[k])] if rollout.tokens else [],
    }


def _first_tokens(tokens: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """The tokens that fit into the characters that are shown of a step."""
    spent = accumulate(max(1, len(text)) for text, _ in tokens)
    return [token for token, until in zip(tokens, spent, strict=True) if until <= MOST_STEP_CHARACTERS]


def _token_view(text: str, score: float, reach: float) -> dict[str, str]:
    """Line breaks, and a token without characters such as the end of the sequence, are shown as signs."""
    share = 0.5 + score / (2 * reach) if reach else math.nan
    return {"text": text.replace("\n", "↵") or "◦", "colour": colour(share) or "q5", "score": number(score)}


def clipped(text: str, most: int) -> str:
    """``text``, or its beginning and the number of characters that are left out."""
    return text if len(text) <= most else f"{text[:most]}… (+{len(text) - most} characters)"


def _size(group: dict[str, Any]) -> int:
    rollouts = [rollout for end in group["ends"] for rollout in end["rollouts"]]
    steps = [step for rollout in rollouts for step in rollout["steps"]]
    tokens = sum(len(step.get("tokens", ())) for step in steps)
    text = sum(len(step.get("text", "")) + MARKUP_PER_STEP for step in steps)
    return len(group["prompt"]) + text + MARKUP_PER_TOKEN * tokens
