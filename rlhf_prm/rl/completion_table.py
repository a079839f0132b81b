"""Our columns of TRL's completions table: steps, scores, verdicts and tool results."""

from typing import Any

from rlhf_prm.rl.rollout_scoring import UNVERIFIED
from rlhf_prm.token_text import texts_of_tokens

STATUS_COLUMN = "verifier_status"
# Reward functions may add columns to the table, but not under these names.
OWN_COLUMNS = (
    *("steps", "step_scores", "step_advantages", "outcome_reward", STATUS_COLUMN),
    *("tokens", "token_scores", "step_lengths"),
    *("tool_results", "turn_of_step", "turn_scores"),
)


def completion_columns(batch: Any, acts: bool, tokenizer: Any = None) -> dict[str, list]:
    """Column → one value per rollout of a ``ScoredBatch``.

    Args:
        acts: whether tools or environments may write in rollouts; ``tool_results`` are {"after": number of steps
            before, "text"}. Otherwise these columns are left out.
        tokenizer: where tokens have scores, for ``tokens``, the texts of the policy's own tokens, and ``step_lengths``,
            which counts them by step. None = without these two, which cost time.
    """
    rows, rollouts = batch.rows, batch.rollouts
    advantages = zip(batch.step_advantages.tolist(), rows, strict=True)
    columns = {
        "steps": [row.steps if row.has_text else None for row in rows],
        "step_scores": [row.scores for row in rows],
        "step_advantages": [of_steps[: len(row.steps)] for of_steps, row in advantages],
    }
    if rollouts.token_scores is not None:
        columns["token_scores"] = [[round(score, 4) for score in row.token_scores.tolist()] for row in rows]
    if rollouts.token_scores is not None and tokenizer is not None:
        columns["tokens"] = [texts_of_tokens(row.token_ids, tokenizer) if row.token_ids else None for row in rows]
        columns["step_lengths"] = [row.lengths for row in rows]
    columns["outcome_reward"] = rollouts.outcome_rewards.tolist()
    columns[STATUS_COLUMN] = [None if row.status == UNVERIFIED else row.status for row in rows]
    if acts:
        columns["turn_of_step"] = [row.turn_of_step for row in rows]
        columns["tool_results"] = [[{"after": steps, "text": text} for steps, text in row.tool_results] for row in rows]
        if rows[0].turn_scores is not None:
            columns["turn_scores"] = [row.turn_scores for row in rows]
    return columns
