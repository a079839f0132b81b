"""Running totals of judging and its cost; a trainer logs their growth under ``prm/judge_…``."""

from dataclasses import dataclass


@dataclass
class JudgeStats:
    """Running totals of one scorer, on this rank.

    A vote is one of ``votes`` readings of a solution (or, for judges asked step by step, of a prefix). A step without a
    score has no readable vote (``judge_unscored_steps``; the votes are counted by cause), or was left out by
    all readable ones because it comes after the first error (``judge_steps_left_out``).
    """

    judge_calls: int = 0  # questions asked, repeated ones for unreadable answers included
    judge_retries: int = 0  # attempts that were repeated because a host failed
    judge_prompt_tokens: float = 0.0
    judge_completion_tokens: float = 0.0
    judge_cost: float = 0.0
    judge_seconds: float = 0.0  # from submitting to the last answer
    judge_votes: int = 0  # asked for and ended, readable or not
    judge_cache_hits: int = 0  # votes known from an earlier call
    judge_duplicates: int = 0  # votes shared with an equal rollout or prefix of the same call
    judge_unreadable: int = 0  # votes of which no attempt could be parsed
    judge_failed: int = 0  # votes that were given up: refused, or failed until the deadline
    judge_over_budget: int = 0  # votes left out because of the budget
    judge_unscored_steps: int = 0  # steps without any vote: unreadable, failed or over budget
    judge_steps_left_out: int = 0  # after the first error of every readable vote

    def told(self) -> str:
        """The totals in one line."""
        tokens = self.judge_prompt_tokens + self.judge_completion_tokens
        return (
            f"{self.judge_calls} questions to the judge ({self.judge_cache_hits + self.judge_duplicates} spared), "
            f"{tokens:,.0f} tokens, cost {self.judge_cost:g}; {self.judge_unreadable} votes unreadable, "
            f"{self.judge_failed} failed, {self.judge_over_budget} over budget; {self.judge_unscored_steps} steps "
            "without a score"
        )


def judge_metrics(growth: dict[str, float]) -> dict[str, float]:
    """Metric name → value for one batch, from the growth of the totals: counts, all tokens together, and shares."""
    metrics = {f"prm/{name}": value for name, value in growth.items() if name.startswith("judge_")}
    if not metrics:
        return {}
    tokens = growth["judge_prompt_tokens"] + growth["judge_completion_tokens"]
    votes = growth["judge_votes"]
    metrics |= {"prm/judge_tokens": tokens}
    metrics |= {"prm/judge_unreadable_frac": growth["judge_unreadable"] / votes if votes else 0.0}
    return metrics
