"""The budget of judging and its use, in calls, tokens, money and seconds per update."""

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from rlhf_prm.generation.requests import Generate, Prompt
from rlhf_prm.generation.tasks import Task

CHARACTERS_PER_TOKEN = 3.5  # of English with LaTeX in a vocabulary of about 150,000 tokens, where none are counted
OVER_BUDGET = object()  # the result of a task that the budget did not cover


@dataclass(frozen=True)
class Budget:
    """The most that one update may cost, over all ranks; None = no limit.

    When one of the limits is reached, no further question is asked: steps without a verdict get NaN and are counted.
    Questions in flight at that moment are finished and paid, except at ``seconds``, when they are given up too. First
    votes are asked for before second ones, so a small budget costs votes before it costs whole rollouts.

    Args:
        calls: questions; attempts repeated for a failing host are not counted again.
        tokens: prompt and answers together.
        cost: in the currency of the prices.
        seconds: from the first question of the update to the end of the last.

    Raises:
        ValueError: a limit is not above 0.
    """

    calls: float | None = None
    tokens: float | None = None
    cost: float | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
                raise ValueError(f"budget_{field.name}: got {value!r}, expected a number above 0, or none for no limit")

    def share(self, ranks: int) -> "Budget":
        """The budget of one of ``ranks`` processes: calls, tokens and cost are divided, seconds are not."""
        if ranks == 1:
            return self
        parts = {name: getattr(self, name) for name in ("calls", "tokens", "cost")}
        divided = {name: None if value is None else value / ranks for name, value in parts.items()}
        return Budget(**divided, seconds=self.seconds)


@dataclass(frozen=True)
class Prices:
    """The price of a million tokens, in any currency."""

    prompt: float = 0.0
    completion: float = 0.0

    def __post_init__(self) -> None:
        for name in ("prompt", "completion"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
                raise ValueError(f"price_{name}: got {value!r}, expected the price of a million tokens, 0 or more")

    def of(self, prompt_tokens: float, completion_tokens: float) -> float:
        """The cost of these numbers of tokens."""
        return (self.prompt * prompt_tokens + self.completion * completion_tokens) / 1e6


class Meter:
    """Counts the questions to a generator, and says when the budget of an update is spent.

    Tokens are those that the generator reports (``usage``), else counted by its tokenizer, else characters / 3.5.
    """

    def __init__(self, generator: Any, budget: Budget | None = None, prices: Prices | None = None) -> None:
        self.generator, self.budget, self.prices = generator, budget or Budget(), prices or Prices()
        self.calls = 0
        self.update: Any = None
        self._counted = [0.0, 0.0]  # prompt and completion tokens, if the generator reports none
        self._before = (0, 0.0, 0.0)
        self._started = time.monotonic()

    def begin(self, update: Any) -> None:
        """Start with the whole budget for a new update, or continue with the rest for the same one."""
        if update is None or update != self.update:
            self.update, self._before, self._started = update, (self.calls, *self.tokens()), time.monotonic()

    def tokens(self) -> tuple[float, float]:
        """Prompt and completion tokens so far."""
        usage = getattr(self.generator, "usage", None)
        if usage is None:
            return self._counted[0], self._counted[1]
        return float(usage.prompt_tokens), float(usage.completion_tokens)

    def cost(self) -> float:
        """The cost so far."""
        return self.prices.of(*self.tokens())

    def seconds_left(self) -> float | None:
        """The seconds left for this update; None without a limit."""
        if self.budget.seconds is None:
            return None
        return max(0.0, self.budget.seconds - (time.monotonic() - self._started))

    def allows(self) -> bool:
        """Whether one more question may be asked."""
        calls, prompt, completion = self._before
        now_prompt, now_completion = self.tokens()
        spent = {
            "calls": self.calls - calls,
            "tokens": now_prompt - prompt + now_completion - completion,
            "cost": self.prices.of(now_prompt - prompt, now_completion - completion),
            "seconds": time.monotonic() - self._started,
        }
        limits = {name: getattr(self.budget, name) for name in spent}
        return all(limit is None or spent[name] < limit for name, limit in limits.items())

    def metered(self, task: Task) -> Task:
        """The same task; its questions are counted, and the first that is not allowed ends it as ``OVER_BUDGET``."""
        answer = None
        while True:
            try:
                request = task.send(answer)
            except StopIteration as stop:
                return stop.value
            if not isinstance(request, Generate):
                answer = yield request
                continue
            if not self.allows():
                return OVER_BUDGET
            self.calls += 1
            answer = yield request
            self._count(request.prompt, answer)

    def _count(self, prompt: Prompt, answers: list[str]) -> None:
        if getattr(self.generator, "usage", None) is not None:
            return
        count = self._counter()
        parts = [prompt] if isinstance(prompt, str) else [message["content"] for message in prompt]
        self._counted[0] += sum(map(count, parts))
        self._counted[1] += sum(map(count, answers))

    def _counter(self) -> Callable[[str], float]:
        tokenizer = getattr(self.generator, "tokenizer", None)
        if tokenizer is None:
            return lambda text: len(text) / CHARACTERS_PER_TOKEN
        return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])
